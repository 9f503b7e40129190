"""Stacks of a folder as training material: uint8 films that are read once, stacks with labels."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from calid.data.intensity import CEILING, IntensityWindow
from calid.errors import CalidError, DataError
from calid.geometry.grid import PIXEL_SPACING, NetworkGrid, resample
from calid.geometry.pixels import PixelGrid
from calid.io import read, read_stack
from calid.io.atomic import atomic
from calid.io.find import find_images, plain_stem
from calid.io.labels import LabelMap, as_labels
from calid.io.nifti import SUFFIXES
from calid.stack import SliceStack

__all__ = [
    "LabelledStack",
    "TrainingFilm",
    "find_stacks",
    "hide_alternate",
    "label_file",
    "labels_on_grid",
    "load_bank",
    "load_labelled",
    "split_subjects",
    "subject_of",
    "to_film",
    "window_units",
]

LEVELS = 170
"""uint8 code of window value 1; 255 is then the ceiling of 1.5."""

LEAST = 16
"""Smallest side of a film in pixels."""


@dataclass(frozen=True)
class TrainingFilm:
    """One subject's stack over time, ready for training."""

    subject: str  # who it is; splits never separate the files of one subject
    frames: NDArray[np.uint8]  # (frames, slices, height, width), `LEVELS` = window value 1
    positions: NDArray[np.float64]  # (slices,), mm along the normal
    spacing: tuple[float, float] = (PIXEL_SPACING, PIXEL_SPACING)  # row and column, mm


def find_stacks(folder: Path) -> list[Path]:
    """NIfTI files below ``folder``, sorted; a `DataError` if there is none.

    See `calid.io.find` for what is left out.
    """
    if not folder.is_dir():
        raise DataError(folder, "There is no such folder.", "Check the path.")
    files = sorted(find_images(folder))
    if not files:
        raise DataError(
            folder, "The folder holds no NIfTI stack.", "Give a folder with .nii or .nii.gz files."
        )
    return files


def subject_of(path: Path) -> str:
    """Subject of a NIfTI file: its name up to the first underscore (``patient001_ED.nii.gz``).

    Of anything else, a folder or zip of DICOM files say, the whole name.
    """
    stem = plain_stem(path.name)
    return stem.split("_")[0] if path.name.lower().endswith(SUFFIXES) else stem


def split_subjects(subjects: Iterable[str], share: float = 0.1) -> set[str]:
    """Subjects held out for validation: a stable choice that depends on names alone."""
    return {s for s in set(subjects) if zlib.crc32(s.encode()) % 1000 < 1000 * share}


def to_film(stack: SliceStack, subject: str, own_pixels: bool = False) -> TrainingFilm:
    """Encode a stack as uint8, at 1.5 mm in-plane or on the grid of its own pixels."""
    window = IntensityWindow.of(stack.data, stack.intensity)
    images = torch.from_numpy(window.normalise(stack.data))
    if own_pixels:
        own = PixelGrid.of(stack.shape[2:], stack.pixel_spacing)
        images, spacing = own.coarsened(images), own.spacing
    else:
        grid = NetworkGrid.of(stack.shape[2:], stack.pixel_spacing)
        images, spacing = resample(images, grid.native, grid.network), (PIXEL_SPACING,) * 2
    codes = (images.clamp(0, CEILING) * LEVELS).round().to(torch.uint8).numpy()
    return TrainingFilm(subject, codes, stack.positions, spacing)


def window_units(codes: NDArray[np.uint8]) -> torch.Tensor:
    """Frames of a film, of any shape, in window units."""
    return torch.from_numpy(codes).float() / LEVELS


def _read_cache(cache: Path, key: str) -> list[TrainingFilm] | None:
    """Films of a cache; None if it is missing, damaged or does not belong to ``key``."""
    try:
        with safe_open(cache, "pt") as store:
            meta = store.metadata() or {}
            if meta.get("key") != key:
                return None
            return [
                TrainingFilm(
                    subject,
                    store.get_tensor(f"{i}.frames").numpy(),
                    store.get_tensor(f"{i}.positions").numpy(),
                    tuple(store.get_tensor(f"{i}.spacing").tolist()),
                )
                for i, subject in enumerate(json.loads(meta["subjects"]))
            ]
    except (SafetensorError, OSError):
        return None


def load_bank(
    folders: Sequence[Path],
    cache: Path,
    extra: Iterable[TrainingFilm] = (),
    extra_key: str = "",
    on_skip: Callable[[Path, CalidError], None] = lambda path, error: None,
    own_pixels: bool = False,
) -> list[TrainingFilm]:
    """Films of all stacks below some folders, from the cache where it is still valid.

    Parameters
    ----------
    cache
        File (safetensors) that is read if it belongs to exactly these files, else rewritten.
    extra, extra_key
        Films to add, such as phantoms, which are only made when the cache is written; and a name
        for them. The cache is rewritten when the name changes.
    on_skip
        Called with every file that could not be used, and the reason.
    """
    files = [path for folder in folders for path in find_stacks(folder)]
    # Changes whenever a file is added, removed or rewritten.
    lines = [f"{extra_key} {own_pixels=}"]
    lines += [f"{p}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files]
    key = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    cached = _read_cache(cache, key)
    if cached is not None:
        return cached
    films = []
    for path in files:
        try:
            film = to_film(read(path), subject_of(path), own_pixels)
            height, width = film.frames.shape[-2:]
            if min(height, width) < LEAST:  # no crop fits
                pixels = f"{film.spacing[0]:.3g} x {film.spacing[1]:.3g} mm"
                raise DataError(
                    path,
                    f"It is {height} x {width} pixels of {pixels}; training takes {LEAST} or more.",
                    "Leave it out.",
                )
            films.append(film)
        except CalidError as error:
            on_skip(path, error)
    if not films:  # said before any phantom is made, which can take long
        raise DataError(
            folders[0], "None of the files could be used as a stack.", "See the warnings above."
        )
    films += extra
    tensors = {}
    for i, film in enumerate(films):
        tensors[f"{i}.frames"] = torch.from_numpy(film.frames)
        tensors[f"{i}.positions"] = torch.from_numpy(film.positions)
        tensors[f"{i}.spacing"] = torch.tensor(film.spacing, dtype=torch.float64)
    metadata = {"key": key, "subjects": json.dumps([f.subject for f in films])}
    cache.parent.mkdir(parents=True, exist_ok=True)
    with atomic(cache) as file:
        file.write(save(tensors, metadata))
    return films


@dataclass(frozen=True)
class LabelledStack:
    """One frame of one stack and its labels."""

    subject: str
    name: str  # of the file, without suffix
    images: NDArray[np.float32]  # (slices, height, width), window units, 1.5 mm pixels
    labels: NDArray[np.uint8]  # same shape; 0 background, 1 RV cavity, 2 LV myocardium, 3 LV cavity
    spacing: tuple[float, float] = (PIXEL_SPACING, PIXEL_SPACING)  # row and column, mm


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
    beside: Path, stack: SliceStack, own_pixels: bool = False, label_map: LabelMap | None = None
) -> NDArray[np.uint8]:
    """Labels of the first frame of a stack, from their file, at 1.5 mm or in own pixels.

    A `DataError` if they have another shape than the stack; else errors as those of `as_labels`.
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

    A `DataError` if there is none, or if labels do not fit their stack.
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


def hide_alternate(slices: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slices 0, 2, 4, ... to keep, and those between two kept ones to hide."""
    kept = np.arange(0, slices, 2)
    hidden = np.arange(1, slices, 2)
    return kept, hidden[hidden < kept[-1]]
