"""Stacks with manual labels, on the networks' in-plane grid."""

from __future__ import annotations

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


def label_file(path: Path) -> Path | None:
    """The label file beside a stack (``X_label.nii.gz`` of ``X.nii.gz``), if it is there."""
    stem, _, suffix = path.name.partition(".nii")
    beside = path.with_name(f"{stem}_label.nii{suffix}")
    return beside if beside.exists() else None


def labels_on_grid(beside: Path, stack: SliceStack, own_pixels: bool = False) -> NDArray[np.uint8]:
    """Labels of the first frame of a stack, from their file, at 1.5 mm or in own pixels.

    Raises
    ------
    DataError
        If they have another shape than the stack.
    """
    mask = read_stack(beside)
    if mask.data.shape != stack.data.shape:
        raise DataError(
            beside,
            f"Labels {mask.data.shape} do not fit the stack {stack.data.shape}.",
            "Give labels on the grid of the images.",
        )
    if own_pixels:
        return np.asarray(np.rint(mask.data[0]), np.uint8)
    return to_network_grid(mask.data[0], stack.pixel_spacing)


def load_labelled(folder: Path) -> list[LabelledStack]:
    """All stacks below a folder that have a label file of the same shape beside them.

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
        labels = labels_on_grid(beside, stack)
        film = to_film(stack, subject_of(path))
        images = film.frames[0].astype(np.float32) / LEVELS
        found.append(LabelledStack(film.subject, plain_stem(path.name), images, labels))
    if not found:
        raise DataError(
            folder,
            "No stack has a label file beside it.",
            "Put X_label.nii.gz beside X.nii.gz: 1 RV, 2 myocardium, 3 LV.",
        )
    return found


def to_network_grid(labels: NDArray[np.generic], spacing: tuple[float, float]) -> NDArray[np.uint8]:
    """Labels ``(slices, height, width)`` at 1.5 mm, by majority of the resampled indicators."""
    grid = NetworkGrid.of(labels.shape[-2:], spacing)
    rounded = np.rint(labels.astype(np.float32))
    indicators = torch.from_numpy(np.stack([rounded == c for c in range(4)]).astype(np.float32))
    shares = resample(indicators, grid.native, grid.network)
    return np.asarray(shares.argmax(0).numpy(), np.uint8)
