"""Stacks with manual labels, on the networks' in-plane grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calid.data.bank import LEVELS, find_stacks, subject_of, to_film
from calid.errors import DataError
from calid.geometry.grid import NetworkGrid
from calid.geometry.resample import resample
from calid.io import read, read_stack
from calid.io.find import plain_stem
from calid.io.labels import LabelMap, as_labels
from calid.stack import SliceStack

__all__ = ["LabelledStack", "label_file", "labels_on_grid", "load_labelled"]


@dataclass(frozen=True)
class LabelledStack:
    """One frame of one stack and its labels.

    Parameters
    ----------
    subject, name
        Who, and the file's name without suffix.
    images
        Shape ``(slices, height, width)``, window units, 1.5 mm pixels.
    labels
        uint8, same shape; 0 background, 1 RV cavity, 2 LV myocardium, 3 LV cavity.
    """

    subject: str
    name: str
    images: NDArray[np.float32]
    labels: NDArray[np.uint8]


def label_file(path: Path, marks: Sequence[str] = ("label", "gt")) -> Path | None:
    """The label file beside a stack, if it is there.

    Of ``X.nii.gz`` that is ``X_label.nii.gz``, ``label_X.nii.gz`` (UK Biobank), ``X_gt.nii.gz``
    (ACDC, M&Ms) or ``gt_X.nii.gz``, in this order.
    """
    stem = plain_stem(path.name)
    names = (name for mark in marks for name in (f"{stem}_{mark}", f"{mark}_{stem}"))
    beside = (path.with_name(name + path.name[len(stem) :]) for name in names)
    return next((file for file in beside if file.exists()), None)


def labels_on_grid(
    beside: Path,
    stack: SliceStack,
    own_pixels: bool = False,
    label_map: LabelMap | None = None,
) -> NDArray[np.uint8]:
    """Labels of the first frame of a stack, from their file, at 1.5 mm or in own pixels.

    ``label_map`` is that of `calid.io.labels.parse_label_map`.

    Raises
    ------
    DataError
        If they have another shape than the stack.
    IntensityError
        If a value is no label.
    """
    mask = read_stack(beside)
    if mask.data.shape != stack.data.shape:
        raise DataError(
            beside,
            f"Labels {mask.data.shape} do not fit the stack {stack.data.shape}.",
            "Give labels on the grid of the images.",
        )
    labels = as_labels(mask, beside, label_map)[0]
    return labels if own_pixels else to_network_grid(labels, stack.pixel_spacing)


def load_labelled(folder: Path, label_map: LabelMap | None = None) -> list[LabelledStack]:
    """All stacks below a folder that have a label file of the same shape beside them.

    ``label_map`` is that of `calid.io.labels.parse_label_map`.

    Raises
    ------
    DataError
        If there is none, or if labels do not fit their stack.
    """
    found = []
    for path in find_stacks(folder):
        beside = label_file(path)
        if beside is None:
            continue
        stack = read(path)
        labels = labels_on_grid(beside, stack, label_map=label_map)
        film = to_film(stack, subject_of(path))
        images = film.frames[0].astype(np.float32) / LEVELS
        found.append(LabelledStack(film.subject, plain_stem(path.name), images, labels))
    if not found:
        raise DataError(
            folder,
            "No stack has a label file beside it.",
            "Put X_label.nii.gz (or X_gt.nii.gz) beside X.nii.gz: 1 RV, 2 myocardium, 3 LV.",
        )
    return found


def to_network_grid(labels: NDArray[np.generic], spacing: tuple[float, float]) -> NDArray[np.uint8]:
    """Labels ``(slices, height, width)`` at 1.5 mm, by majority of the resampled indicators."""
    grid = NetworkGrid.of(labels.shape[-2:], spacing)
    rounded = np.rint(labels.astype(np.float32))
    indicators = torch.from_numpy(np.stack([rounded == c for c in range(4)]).astype(np.float32))
    shares = resample(indicators, grid.native, grid.network)
    return np.asarray(shares.argmax(0).numpy(), np.uint8)
