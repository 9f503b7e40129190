"""Hidden slices: every second real slice is hidden, reconstructed, and compared.

Only hidden slices between two kept ones count. Intensities are scaled by the kept slices'
percentiles and clipped to [0, 1]; the region is 192 mm wide around the heart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calid.baselines.signature import Method
from calid.data.bank import PIXEL_SPACING, subject_of
from calid.data.intensity import IntensityWindow
from calid.data.sparsify import hide_alternate
from calid.errors import DataError
from calid.evaluation.metrics import hfen, psnr, sharpness, ssim
from calid.geometry.resample import resample
from calid.io import read

__all__ = [
    "METRICS",
    "Case",
    "Outcome",
    "compare",
    "evaluate_case",
    "load_case",
    "subject_means",
]

REGION = 128
"""Side of the compared square in pixels of 1.5 mm."""

METRICS = {"psnr": psnr, "ssim": ssim, "hfen": hfen, "sharpness": sharpness}


@dataclass(frozen=True)
class Case:
    """One frame of one stack, cut to the region, in window units.

    Parameters
    ----------
    subject, name
        Who, and the file's name without suffix.
    images
        ``(slices, side, side)``, 1.5 mm pixels, not clipped above 1.
    positions
        ``(slices,)``, mm.
    """

    subject: str
    name: str
    images: NDArray[np.float32]
    positions: NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What one method did on one case: figures per hidden slice, and its images."""

    figures: Mapping[str, NDArray[np.float64]]
    images: NDArray[np.float32]


def load_case(path: Path, frame: int = 0) -> Case:
    """Read a stack and cut the region around the heart.

    The centre is that of the bounding box of the labels beside the file (``_label`` or
    ``_lv``), which are used for nothing else; without labels, that of the image.

    Raises
    ------
    DataError
        If the stack has fewer than three slices: nothing can be hidden.
    """
    stack = read(path)
    if stack.n_slices < 3:
        raise DataError(path, "Fewer than three slices: none can be hidden.", "Leave it out.")
    kept, _ = hide_alternate(stack.n_slices)
    images = IntensityWindow.of(stack.data[frame, kept]).normalise(stack.data[frame])
    native = tuple(zip(stack.shape[2:], stack.pixel_spacing, strict=True))
    target = tuple((max(16, round(n * s / PIXEL_SPACING)), PIXEL_SPACING) for n, s in native)
    fine = resample(torch.from_numpy(images), native, target).clamp(0).numpy()  # type: ignore[arg-type]
    height, width = fine.shape[-2:]
    centre = _label_centre(path) or (0.5, 0.5)
    top = _start(centre[0] * height, height)
    left = _start(centre[1] * width, width)
    region = fine[:, top : top + min(REGION, height), left : left + min(REGION, width)]
    return Case(subject_of(path), path.name.split(".nii")[0], region, stack.positions)


def evaluate_case(case: Case, method: Method) -> Outcome:
    """Hide, reconstruct and compare.

    Returns
    -------
    Outcome
        Figures of shape ``(hidden slices,)`` and images ``(hidden slices, side, side)``.
    """
    kept, hidden = hide_alternate(len(case.positions))
    spacing = (PIXEL_SPACING, PIXEL_SPACING)
    return compare(
        method(case.images[kept], case.positions[kept], case.positions[hidden], spacing),
        case.images[hidden],
    )


def compare(prediction: NDArray[np.float32], truth: NDArray[np.float32]) -> Outcome:
    """Figures of every slice of ``(slices, side, side)`` images, both clipped to [0, 1]."""
    shown, wanted = (torch.from_numpy(np.clip(x, 0, 1)) for x in (prediction, truth))
    figures = {name: metric(shown, wanted).double().numpy() for name, metric in METRICS.items()}
    return Outcome(figures, shown.numpy())


def subject_means(
    rows: Iterable[tuple[str, Mapping[str, NDArray[np.float64]]]],
) -> dict[str, dict[str, float]]:
    """Mean over the hidden slices of all stacks of a subject: subject to metric to figure."""
    pooled: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    for subject, figures in rows:
        for name, values in figures.items():
            pooled.setdefault(subject, {}).setdefault(name, []).append(values)
    return {
        subject: {name: float(np.concatenate(v).mean()) for name, v in metrics.items()}
        for subject, metrics in pooled.items()
    }


def _start(centre: float, size: int) -> int:
    """First index of a region about ``centre``, moved to stay inside."""
    return int(np.clip(round(centre - REGION / 2), 0, max(0, size - REGION)))


def _label_centre(path: Path) -> tuple[float, float] | None:
    """Centre of the labels as a share of height and width, if a label file is there."""
    stem, suffix = path.name.split(".nii", 1)
    for mark in ("_label", "_lv"):
        beside = path.with_name(f"{stem}{mark}.nii{suffix}")
        if beside.exists():
            labelled = (read(beside).data != 0).any(axis=(0, 1))
            if labelled.any():
                spans = (np.flatnonzero(labelled.any(axis=a)) for a in (1, 0))
                top, left = (
                    (s[0] + s[-1] + 1) / 2 / n for s, n in zip(spans, labelled.shape, strict=True)
                )
                return float(top), float(left)
    return None
