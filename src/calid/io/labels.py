"""Label files in and out: small integers on the grid of a stack."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calid.errors import GeometryError, IntensityError
from calid.geometry.affine import SpacingFrom
from calid.geometry.dense_grid import TOLERANCE, offsets
from calid.io.nifti import MAX_BYTES, read_stack
from calid.io.nifti_write import write_on_grid
from calid.labels import CLASSES
from calid.stack import Intensity, SliceStack, Volume

__all__ = ["check_same_grid", "read_labels", "write_labels"]

ROUNDING = 1e-3
"""Largest distance from an integer at which a float counts as that integer."""


def write_labels(labels: NDArray[np.uint8], like: SliceStack, path: str | os.PathLike[str]) -> None:
    """Write labels as uint8 NIfTI-1 on the grid of a stack, atomically.

    Parameters
    ----------
    labels
        Shape of ``like.data``.
    like
        Whose affine, number of axes and frame times the file gets.
    path
        Ends with ``.nii`` or ``.nii.gz``.

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
    on_grid = Volume(
        data=labels.astype(np.uint8, copy=False),
        affine=like.affine,
        positions=like.positions,
        acquired=np.ones(like.n_slices, np.bool_),
        frame_times=like.frame_times,
        rank=like.rank,
    )
    # In NIfTI a slope of 0 means that values are not scaled, so no reader makes them floats.
    write_on_grid(on_grid.data, on_grid, Intensity(0.0, 0.0), "CaLID labels", path)


def read_labels(
    path: str | os.PathLike[str],
    like: SliceStack,
    *,
    spacing_from: SpacingFrom = "auto",
    max_bytes: int = MAX_BYTES,
) -> NDArray[np.uint8]:
    """Read labels that belong to a stack.

    Parameters
    ----------
    path
        NIfTI file of integers, of any type, 0 to 3.
    like
        The stack that was labelled.
    spacing_from, max_bytes
        As for the stack; see `calid.io.read`.

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
    """
    found = read_stack(path, spacing_from=spacing_from, max_bytes=max_bytes)
    if found.n_frames != like.n_frames:
        raise GeometryError(
            path,
            f"Labels of {found.n_frames} frames do not fit a stack of {like.n_frames}.",
            "Give one label volume per frame.",
        )
    check_same_grid(found, like, path)
    scale = found.intensity
    values = found.data.astype(np.float64) * scale.slope + scale.intercept
    labels = np.rint(values)
    highest = max(CLASSES.values())
    bad = (np.abs(values - labels) > ROUNDING) | (labels < 0) | (labels > highest)
    if bad.any():
        raise IntensityError(
            path,
            f"{int(bad.sum())} voxels are no labels; the first has the value {values[bad][0]:g}.",
            "Use 1 for the RV cavity, 2 for the LV myocardium, 3 for the LV cavity, 0 elsewhere.",
        )
    return labels.astype(np.uint8)


def check_same_grid(
    stack: SliceStack, reference: SliceStack, subject: str | os.PathLike[str]
) -> None:
    """Refuse a stack whose slices lie elsewhere than those of another.

    Programs write affines in different precision: corners may lie up to half a pixel apart.

    Parameters
    ----------
    stack, reference
        Their frames may differ in number.
    subject
        The file of ``stack``, for the message.

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
