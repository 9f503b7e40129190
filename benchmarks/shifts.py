"""How often shifted slices are found: synthetic hearts with known shifts, real stacks without.

    python benchmarks/shifts.py [FOLDER]

FOLDER holds stacks ``*_ED.nii.gz``, with manual labels beside them. Of real stacks nobody knows
the truth; the manual labels tell whether the hearts of these slices are drawn off as well.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from calid import CLASSES, HeartPhantom, Segmenter, SliceStack, load_segmenter, read, read_stack
from calid.data.bank import label_file
from calid.segmentation.heart import centres_of, find_centres, off_the_curve

HEARTS = 30
SIZES = (2.0, 4.0, 6.0)


def moved(stack: SliceStack, number: int, rows: float, columns: float) -> SliceStack:
    """A slice of the first frame moved by millimetres."""
    data = stack.data.copy()
    steps = np.array([rows, columns]) / stack.pixel_spacing
    data[0, number] = ndimage.shift(data[0, number].astype(float), steps, order=1, mode="nearest")
    return replace(stack, data=data)


def judged(centres: NDArray[np.float64]) -> list[int]:
    """Slices that can be judged: those between the outermost with a cavity."""
    return [int(k) for k in np.flatnonzero(np.isfinite(centres[:, 0]))[1:-1]]


def phantoms(segmenter: Segmenter) -> None:
    """Print detection and false alarms in synthetic hearts."""
    chance = np.random.default_rng(0)
    alarms = slices = 0
    found, errors = dict.fromkeys(SIZES, 0), dict.fromkeys(SIZES, 0.0)
    for seed in range(HEARTS):
        stack = HeartPhantom(seed).acquire(gap=10.0)
        centres = find_centres(stack, segmenter)
        inner = judged(centres)
        alarms += len(off_the_curve(centres, stack.positions))
        slices += len(inner)
        number, angle = int(chance.choice(inner)), chance.uniform(0, 2 * np.pi)
        for size in SIZES:
            wanted = size * np.array([np.sin(angle), np.cos(angle)])
            other = find_centres(moved(stack, number, *wanted), segmenter)
            shifts = {s.slice: s for s in off_the_curve(other, stack.positions)}
            alarms += len(shifts.keys() - {number})
            slices += len(judged(other)) - 1
            if number in shifts:
                found[size] += 1
                own = shifts[number]
                errors[size] += float(np.hypot(*(wanted - (own.rows_mm, own.columns_mm))))
    for size in SIZES:
        error = f", {errors[size] / found[size]:.2f} mm wrong" if found[size] else ""
        print(f"moved by {size:g} mm: found {found[size]} of {HEARTS}{error}")
    print(f"sound slices called shifted: {alarms} of {slices}")


def real(folder: Path, segmenter: Segmenter) -> None:
    """Print alarms in real stacks, and how many of them the manual labels show too."""
    hearts = alarms = confirmed = slices = stacks = 0
    for path in sorted(folder.glob("*_ED.nii.gz")):
        stack, beside = read(path), label_file(path)
        centres = find_centres(stack, segmenter)
        shifts = off_the_curve(centres, stack.positions)
        stacks, hearts = stacks + 1, hearts + bool(shifts)
        alarms, slices = alarms + len(shifts), slices + len(judged(centres))
        if beside is not None:
            manual = centres_of(read_stack(beside).data[0] == CLASSES["LV"], stack.pixel_spacing)
            drawn = {s.slice for s in off_the_curve(manual, stack.positions)}
            confirmed += sum(s.slice in drawn for s in shifts)
    print(
        f"{folder.name}: {hearts} of {stacks} hearts, {alarms} of {slices} slices called shifted,"
    )
    print(f"{confirmed} of them off in the manual labels as well")


if __name__ == "__main__":
    network = load_segmenter("cpu")
    phantoms(network)
    for name in sys.argv[1:]:
        real(Path(name), network)
