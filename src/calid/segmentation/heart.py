"""Where the heart is in the slices: the box around it, and slices in which it is shifted.

Breath-holds differ, so a slice can show the heart in another place than its neighbours do. The
centres of the left ventricle's cavity lie on a smooth curve through the slices, even where the
anatomy changes from slice to slice. The centre of every slice between the outermost ones is
compared with the curve through the others (a parabola that weights near slices most and resists
single outliers). The slice that is farthest off is set aside, then the next, as long as one is
farther off than `SHIFT`. An end slice has a neighbour on one side only: if it is shifted, that
neighbour can seem to be the shifted one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calid.data.intensity import CEILING, IntensityWindow
from calid.errors import CalidWarning
from calid.geometry.grid import PIXEL_SPACING, NetworkGrid
from calid.geometry.pixels import PixelGrid, Region
from calid.io.labels import LV
from calid.segmentation.segment import Segmenter, keep_largest, load_segmenter
from calid.stack import SliceStack

__all__ = [
    "FEWEST",
    "SHIFT",
    "Shift",
    "centres_of",
    "checked",
    "find_centres",
    "find_shifts",
    "heart_region",
    "off_the_curve",
    "told",
    "undone",
]

FRAMES = 3
"""Frames of a film to search for the heart, evenly over the beat, so that one shows it large."""

MARGIN = 8.0
"""Millimetres around the heart in which the answer comes from the networks only."""

LEAST_AREA = 600.0
"""Square millimetres that the labels must cover in a slice to be a heart."""

WORTH = 0.8
"""Share of the field above which a region saves too little."""

SHIFT = 3.0
"""Millimetres off the curve that count as a shift."""

CAVITY = 0.15
"""Smallest area of a cavity whose centre is trusted, as a share of the largest slice's."""

REACH = 20.0
"""Millimetres along the stack within which slices shape the curve most."""

FEWEST = 4
"""Slices with a cavity that are needed to judge any of them."""


def heart_region(stack: SliceStack, segmenter: Segmenter | None = None) -> Region | None:
    """A box around everything that is labelled in any slice.

    Parameters
    ----------
    segmenter
        The released network if nothing is given.

    Returns
    -------
    Region or None
        None if no heart is found, or if the box is nearly all there is.
    """
    beat = np.unique(np.arange(FRAMES) * stack.n_frames // FRAMES).tolist()
    grid, labels = _labels(stack, beat, segmenter or load_segmenter())
    found = np.any(labels > 0, axis=(0, 1))
    if found.sum() * PIXEL_SPACING**2 < LEAST_AREA:
        return None
    pixels = PixelGrid.of(stack.shape[2:], stack.pixel_spacing)
    marked = grid.leave(torch.from_numpy(found.astype(np.float32))[None])[0].numpy() > 0.5
    rows, columns = (
        ((np.arange(size) + 0.5) * given / size).astype(int)
        for given, size in zip(pixels.shape, pixels.size, strict=True)
    )
    left, right, top, bottom = pixels.padding
    marked = np.pad(marked[np.ix_(rows, columns)], ((top, bottom), (left, right)))
    region = Region.around(marked, round(MARGIN / min(pixels.spacing)))
    return region if region is not None and region.share < WORTH else None


def _labels(
    stack: SliceStack, frames: Sequence[int], segmenter: Segmenter
) -> tuple[NetworkGrid, NDArray[np.uint8]]:
    """Labels ``(frames, slices, height, width)`` of some frames on the network's padded grid."""
    grid = NetworkGrid.of(stack.shape[2:], stack.pixel_spacing)
    window = IntensityWindow.of(stack.data, stack.intensity)
    found = []
    for images in window.normalise(stack.data[list(frames)]):
        shown = grid.enter(torch.from_numpy(images)).clamp(0, CEILING)[:, None]
        labels = torch.cat([segmenter.classes(part).cpu() for part in shown.split(8)])
        found.append(keep_largest(labels.numpy().astype(np.uint8)))
    return grid, np.stack(found)


@dataclass(frozen=True)
class Shift:
    """How far the heart of a slice lies off the curve through the others."""

    slice: int  # counted from 0
    rows_mm: float  # along rising row numbers
    columns_mm: float

    @property
    def size_mm(self) -> float:
        """Length of the shift."""
        return float(np.hypot(self.rows_mm, self.columns_mm))

    def facts(self) -> dict[str, Any]:
        """For a record."""
        rows, columns = round(self.rows_mm, 2), round(self.columns_mm, 2)
        return {"slice": self.slice, "rows_mm": rows, "columns_mm": columns}


def find_shifts(stack: SliceStack, segmenter: Segmenter) -> list[Shift]:
    """Slices of the first frame in which the heart is shifted, in the order of slices.

    The outermost slices with a cavity cannot be judged: they have a neighbour on one side only.
    """
    if stack.n_slices < FEWEST:
        return []
    return off_the_curve(find_centres(stack, segmenter), stack.positions)


def find_centres(stack: SliceStack, segmenter: Segmenter) -> NDArray[np.float64]:
    """Centres of the left ventricle's cavity in the first frame, as `centres_of`."""
    _, labels = _labels(stack, [0], segmenter)
    return centres_of(labels[0] == LV, (PIXEL_SPACING, PIXEL_SPACING))


def centres_of(
    cavities: NDArray[np.bool_], spacing: tuple[float, float], least: float = CAVITY
) -> NDArray[np.float64]:
    """Centres ``(slices, 2)`` in mm of masks; not a number where one is too small.

    Parameters
    ----------
    cavities
        Shape ``(slices, height, width)``.
    spacing
        In-plane ``(row, column)`` spacing in mm.
    least
        Share of the largest mask's area that one needs.
    """
    areas = cavities.sum((1, 2))
    centres = np.full((len(cavities), 2), np.nan)
    for number in np.flatnonzero(areas > least * areas.max()):
        centres[number] = np.argwhere(cavities[number]).mean(0) * spacing
    return centres


def off_the_curve(centres: NDArray[np.float64], positions: NDArray[np.float64]) -> list[Shift]:
    """Centres that lie farther than `SHIFT` off the curve through the others.

    Parameters
    ----------
    centres
        Shape ``(slices, 2)``, rows and columns in mm; not a number where there is none.
    positions
        Shape ``(slices,)``, mm along the normal.
    """
    known = [int(k) for k in np.flatnonzero(np.isfinite(centres[:, 0]))]
    sound = list(known)
    while len(sound) >= FEWEST:
        inner = [k for k in known[1:-1] if k in sound]
        off = {k: _off(k, [o for o in sound if o != k], centres, positions) for k in inner}
        worst = max(off, key=lambda k: float(np.hypot(*off[k])))
        if np.hypot(*off[worst]) <= SHIFT:
            break
        sound.remove(worst)
    shifted = sorted(set(known) - set(sound))
    return [Shift(k, *map(float, _off(k, sound, centres, positions))) for k in shifted]


def _off(
    number: int,
    others: Sequence[int],
    centres: NDArray[np.float64],
    positions: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Centre of a slice minus where the curve through the others passes it."""
    along = (positions[others] - positions[number]) / REACH
    curve = np.vander(along, 3 if len(others) > FEWEST else 2)
    near = np.exp(-0.5 * along**2)
    weights, there = near, centres[others]
    for _ in range(10):  # least absolute distances, by reweighted least squares
        root = np.sqrt(weights)[:, None]
        fit = np.linalg.lstsq(curve * root, there * root, rcond=None)[0]
        weights = near / np.maximum(np.hypot(*(there - curve @ fit).T), 0.5)
    return np.asarray(centres[number] - fit[-1], np.float64)


def undone(stack: SliceStack, shifts: Sequence[Shift]) -> SliceStack:
    """The stack with its shifted slices moved back by whole pixels, in all frames.

    No value is interpolated; pixels that come in from outside repeat the edge.
    """
    data = stack.data.copy()
    for shift in shifts:
        rows, columns = pixels(stack, shift)
        down, right = (
            np.clip(np.arange(size) + step, 0, size - 1)
            for size, step in zip(stack.shape[2:], (rows, columns), strict=True)
        )
        data[:, shift.slice] = stack.data[:, shift.slice][:, down][:, :, right]
    return replace(stack, data=data)


def pixels(stack: SliceStack, shift: Shift) -> tuple[int, int]:
    """Whole rows and columns nearest to a shift."""
    row, column = stack.pixel_spacing
    return round(shift.rows_mm / row), round(shift.columns_mm / column)


def told(shifts: Sequence[Shift]) -> str:
    """A sentence with number and size of every shift; empty if there is none."""
    if not shifts:
        return ""
    each = ", ".join(f"slice {s.slice} (counted from 0) by {s.size_mm:.1f} mm" for s in shifts)
    return f"the heart lies off its neighbours in {each}. Breath-holds may have differed."


def checked(
    stack: SliceStack, segmenter: Segmenter, fix: bool
) -> tuple[SliceStack, list[dict[str, Any]]]:
    """Look for shifts, warn of them, and move slices back if ``fix``.

    The facts, for the record, are every shift and by how many pixels its slice was moved.
    """
    shifts = find_shifts(stack, segmenter)
    if shifts:
        end = " They are moved back." if fix else " calid reconstruct `fix_shifts` moves them back."
        warnings.warn(f"{stack.source}: {told(shifts)}{end}", CalidWarning, stacklevel=2)
    moved = [pixels(stack, shift) if fix else (0, 0) for shift in shifts]
    facts = [
        shift.facts() | {"moved_pixels": [-rows, -columns]}
        for shift, (rows, columns) in zip(shifts, moved, strict=True)
    ]
    return undone(stack, shifts) if fix and shifts else stack, facts
