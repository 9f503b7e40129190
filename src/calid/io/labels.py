"""The labels, in ACDC's numbering, and files of them on the grid of a stack."""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from calid.errors import CalidWarning, GeometryError, IntensityError, UsageError
from calid.geometry.affine import SpacingFrom
from calid.geometry.dense_grid import TOLERANCE, offsets
from calid.io.nifti import MAX_BYTES, read_stack, write_on_grid
from calid.stack import Intensity, SliceStack

__all__ = [
    "CLASSES",
    "LV",
    "MYOCARDIUM",
    "RV",
    "LabelMap",
    "as_labels",
    "check_same_grid",
    "doubtful_order",
    "missing_labels",
    "parse_label_map",
    "read_labels",
    "write_labels",
]

RV, MYOCARDIUM, LV = 1, 2, 3

CLASSES = MappingProxyType({"RV": RV, "MYO": MYOCARDIUM, "LV": LV})
"""Names of tables to labels: RV cavity, LV myocardium, LV cavity; 0 is everything else."""

_OWN = {label: label for label in CLASSES.values()}

LabelMap = Mapping[int, int]
"""Values in a file to the package's labels."""

SURROUNDED = 0.2
"""Share of an outline by which another order of labels must fit better to be reported."""

ROUNDING = 1e-3
"""Largest distance from an integer at which a float counts as that integer."""


def write_labels(labels: NDArray[np.uint8], like: SliceStack, path: str | os.PathLike[str]) -> None:
    """Write labels (shape of ``like.data``) as uint8 NIfTI-1, atomically.

    The file gets the affine, number of axes and frame times of the stack ``like``.

    Raises
    ------
    GeometryError
        If labels have another shape, or the gaps of the stack are too uneven for NIfTI.
    OutputError
        If it cannot be written there; an older file is then unchanged.
    """
    if labels.shape != like.shape:
        raise GeometryError(
            path, f"Labels {labels.shape} do not fit the stack {like.shape}.", "Label all slices."
        )
    away = float(np.abs(offsets(like.positions, like.affine, like.affine)).max())
    if away > TOLERANCE:
        raise GeometryError(
            path,
            f"NIfTI has equal gaps only; a slice would be {away:.3g} mm from its place.",
            "Reconstruct the stack first and label the result.",
        )
    # In NIfTI a slope of 0 means that values are not scaled, so no reader makes them floats.
    labels = labels.astype(np.uint8, copy=False)
    write_on_grid(labels, like, Intensity(0.0, 0.0), "CaLID labels", path)


def read_labels(
    path: str | os.PathLike[str],
    like: SliceStack,
    *,
    spacing_from: SpacingFrom = "auto",
    max_bytes: int = MAX_BYTES,
    label_map: LabelMap | None = None,
) -> NDArray[np.uint8]:
    """Read labels that belong to a stack.

    Parameters
    ----------
    path
        NIfTI file of integers, of any type, 0 to 3 unless ``label_map`` says otherwise.
    like
        The stack that was labelled.
    spacing_from, max_bytes
        As for the stack; see `calid.io.read`.
    label_map
        As `parse_label_map` gives it.

    Returns
    -------
    NDArray
        uint8, shape of ``like.data``.

    Raises
    ------
    GeometryError
        If the file has another shape, or lies elsewhere (see `check_same_grid`).
    IntensityError
        If a value is no label.
    InputError
        If the file is missing or damaged.

    Warns
    -----
    CalidWarning
        If labels seem to be in another order, or a map leaves values out.
    """
    found = read_stack(path, spacing_from=spacing_from, max_bytes=max_bytes)
    if found.n_frames != like.n_frames:
        raise GeometryError(
            path,
            f"Labels of {found.n_frames} frames do not fit a stack of {like.n_frames}.",
            "Give one label volume per frame.",
        )
    check_same_grid(found, like, path)
    return as_labels(found, path, label_map)


def as_labels(
    found: SliceStack, path: str | os.PathLike[str], label_map: LabelMap | None = None
) -> NDArray[np.uint8]:
    """Values of a file as the package's labels; errors and warnings as `read_labels`."""
    scale = found.intensity
    values = found.data.astype(np.float64) * scale.slope + scale.intercept
    numbers = np.rint(values)
    known = {0: 0} | dict(label_map or _OWN)
    bad = np.abs(values - numbers) > ROUNDING
    unknown = ~np.isin(numbers, list(known))
    if label_map is None:
        bad |= unknown
    if bad.any():
        raise IntensityError(
            path,
            f"{int(bad.sum())} voxels are no labels; the first has the value {values[bad][0]:g}.",
            "Use 1 for the RV cavity, 2 for the LV myocardium, 3 for the LV cavity, 0 elsewhere, "
            "or say what is what with --label-map.",
        )
    notes = []
    if unknown.any():
        others = ", ".join(f"{value:g}" for value in np.unique(numbers[unknown])[:5])
        notes.append(f"{int(unknown.sum())} voxels of other labels ({others}) are background.")
    labels = np.zeros(numbers.shape, np.uint8)
    for value, label in known.items():
        labels[numbers == value] = label
    for note in notes + doubtful_order(labels, label_map):
        warnings.warn(f"{path}: {note}", CalidWarning, stacklevel=3)
    return labels


def parse_label_map(text: str | None) -> LabelMap | None:
    """Values of a file to labels, of ``LV=1,MYO=2,RV=3``; a name may come more than once.

    Without a text there is no map: files then hold the package's own labels.

    Raises
    ------
    UsageError
        If it is anything else, or one value is to be two labels.
    """
    if text is None:
        return None
    pairs = re.findall(r"(\w+)=(\d+)", text)
    names = {name.upper() for name, _ in pairs}
    values = {int(value) for _, value in pairs}
    whole = ",".join(f"{name}={value}" for name, value in pairs) == text.replace(" ", "")
    if not whole or "LV" not in names or names - set(CLASSES) or len(values) < len(pairs):
        raise UsageError(
            f"--label-map {text}",
            "A map gives LV, MYO and RV the values that they have in the file, each its own.",
            "Use LV=1,MYO=2,RV=3 for labels of M&Ms and UK Biobank.",
        )
    return {int(value): CLASSES[name.upper()] for name, value in pairs}


def missing_labels(labels: NDArray[np.uint8]) -> list[str]:
    """What is missing in labels ``(frames, slices, height, width)``, in sentences.

    Empty if all labels are there, and in every slice between two that have them.
    """
    there = (labels[..., None, :, :] == np.array([*CLASSES.values()])[:, None, None]).any((-2, -1))
    notes = [
        f"no voxel is labelled {name} ({value}): its volume is 0."
        for (name, value), any_ in zip(CLASSES.items(), there.any((0, 1)), strict=True)
        if not any_ and there.any()
    ]
    before = np.maximum.accumulate(there, axis=1)
    after = np.maximum.accumulate(there[:, ::-1], axis=1)[:, ::-1]
    gaps = np.argwhere(before & after & ~there)
    if len(gaps):
        shown = [f"{[*CLASSES][c]} in slice {k} of frame {f}" for f, k, c in gaps[:6].tolist()]
        notes.append(
            f"{', '.join(shown)}{', …' * (len(gaps) > 6)} (counted from 0): no label, though "
            "slices on both sides have it. Its volume there is missing."
        )
    return notes


def doubtful_order(labels: NDArray[np.uint8], label_map: LabelMap | None = None) -> list[str]:
    """A note if another pair of labels fits as ring and core better than myocardium and LV.

    Parameters
    ----------
    labels
        Shape ``(frames, slices, height, width)``.
    label_map
        By which they were read; a better one is proposed in the file's own values.

    Returns
    -------
    list of str
        Empty if the order is as it should be, or cannot be judged.
    """
    shares = {
        (ring, core): _surrounds(labels, CLASSES[ring], CLASSES[core])
        for ring, core in itertools.permutations(CLASSES, 2)
    }
    ring, core = max(shares, key=lambda pair: shares[pair])
    usual = shares["MYO", "LV"]
    if shares[ring, core] <= usual + SURROUNDED:
        return []
    value = _OWN | {label: v for v, label in (label_map or _OWN).items()}
    third = ({*CLASSES} - {ring, core}).pop()
    better = f"LV={value[CLASSES[core]]},MYO={value[CLASSES[ring]]},RV={value[CLASSES[third]]}"
    return [
        f"what is labelled {ring} covers {shares[ring, core]:.0%} of the outline of {core}, and "
        f"MYO {usual:.0%} of that of LV. Myocardium surrounds the left ventricle: are the labels "
        f"in another order? --label-map {better} reads them so."
    ]


def _surrounds(labels: NDArray[np.uint8], ring: int, core: int) -> float:
    """Share of the outline of ``core`` in its slices that has ``ring`` on its other side."""
    total = covered = 0
    for axis in (-2, -1):
        ends = np.moveaxis(labels, axis, 0)
        for one, two in ((ends[:-1], ends[1:]), (ends[1:], ends[:-1])):
            edge = (one == core) & (two != core)
            total += int(edge.sum())
            covered += int((edge & (two == ring)).sum())
    return covered / total if total else 0.0


def check_same_grid(
    stack: SliceStack, reference: SliceStack, subject: str | os.PathLike[str]
) -> None:
    """Refuse a stack whose slices lie elsewhere than those of another.

    Programs write affines in different precision: corners may lie up to half a pixel apart. The
    number of frames may differ. ``subject`` is the file of ``stack``, for the message.

    Raises
    ------
    GeometryError
        If number or place of slices, rows or columns differ.
    """
    name, own, wanted = Path(reference.source).name, stack.shape[1:], reference.shape[1:]
    if own != wanted:
        raise GeometryError(
            subject,
            f"Its (slices, rows, columns) {own} are not those of {name}, {wanted}.",
            "Give a file on the same grid.",
        )
    ends = [(0, size - 1) for size in reversed(own)]
    corners = np.array([(*corner, 1) for corner in itertools.product(*ends)], np.float64)
    apart = np.linalg.norm(corners @ (stack.affine - reference.affine).T, axis=1).max()
    apart = max(apart, np.abs(stack.positions - reference.positions).max())
    if apart > min(reference.pixel_spacing) / 2:
        raise GeometryError(
            subject,
            f"It lies elsewhere than {name}: their corners are up to {apart:.3g} mm apart.",
            "Give a file on the same grid, with the same affine.",
        )
