"""Dense truth: hearts that are known everywhere are made sparse, and compared everywhere.

A dense heart is integrated over slice profiles of 8 mm every 10 mm. Methods answer every
2 mm between the outermost slices. The truth there is what the scanner would have given: the
heart integrated over the same profile. There is no noise. Images are clipped to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from calid.data.bank import find_stacks, subject_of
from calid.data.intensity import UNSCALED, IntensityWindow
from calid.data.phantom import FIRST_HELD_OUT, HeartPhantom
from calid.errors import DataError
from calid.evaluation.downstream import Labeller
from calid.evaluation.hidden_slices import image_figures, recoded
from calid.evaluation.metrics import psnr, ssim
from calid.evaluation.protocol import Case, Figures, Protocol
from calid.evaluation.reslice import LANDMARKS, Reslicer, own_axis
from calid.geometry.grid import PIXEL_SPACING
from calid.inference.model import Model
from calid.io import Reader, read_stack
from calid.io.find import plain_stem
from calid.io.labels import LV, RV
from calid.segmentation.measures import slab_widths
from calid.stack import Intensity

__all__ = [
    "DenseCase",
    "dense",
    "dense_case",
    "first_slice",
    "long_axis_figures",
    "phantom_case",
    "smoothness",
    "sources",
    "volume_case",
]

PHANTOMS = "phantoms"

GAP, THICKNESS, STEP = 10.0, 8.0, 2.0
"""In mm: gap of acquired slices, thickness of slices (also of the truth), step of the truth."""

FACTOR = round(GAP / STEP)

FIELD_OF_VIEW = 192.0
"""Largest side of the images in mm."""

ABOVE_VALVE = -14.0
"""Largest z in mm of a phantom's first slice: all of both cavities lies beyond it."""

GOLDEN = (math.sqrt(5) - 1) / 2
"""The fractional parts of its multiples cover [0, 1) evenly, however many there are."""

MOST_OUTSIDE = 0.02
"""Largest share of a resliced volume that may be made up by mirroring it."""


@dataclass(frozen=True)
class DenseCase(Case):
    """A case with the exact volumes of ``lv`` and ``rv`` in ml; a scan has none."""

    millilitres: Mapping[str, float] = field(kw_only=True)


def dense(
    label: Labeller | None, autoencoder: Model | None, reader: Reader = read_stack
) -> Protocol:
    """The protocol.

    Without ``label``, the segmentation network, the errors of volumes are left out; without
    ``autoencoder`` the ceiling row. ``reader`` reads the volumes.
    """
    errors = ("lv_error", "rv_error") if label else ()
    return Protocol(
        name="dense",
        load=partial(dense_case, reader=reader),
        score=lambda case, answer: _score(cast(DenseCase, case), answer, label),
        columns=("psnr", "ssim", "sharpness", "psnr_long", "ssim_long", "smoothness", *errors),
        headline=("psnr", "ssim", "ssim_long"),
        lower_is_better=frozenset({"hfen", *errors}),
        ceilings={"autoencoder": recoded(autoencoder)} if autoencoder else {},
    )


def sources(data: Path, count: int = 20) -> list[Path]:
    """What `dense_case` can load.

    Parameters
    ----------
    data
        A dense NIfTI volume, a folder of them, or, if no such folder exists, the word
        ``phantoms``: then ``phantoms/1000`` and so on, which are not on any disk.
    count
        Number of phantoms.
    """
    if data.name == PHANTOMS and not data.is_dir():
        return [data / str(FIRST_HELD_OUT + n) for n in range(count)]
    return [data] if data.is_file() else find_stacks(data)


def dense_case(path: Path, reader: Reader = read_stack) -> DenseCase:
    """A phantom if the path is a number in ``phantoms``, else the volume in that file.

    Raises
    ------
    DataError
        If a phantom was trained on, or a volume is not dense or too short.
    """
    if path.parent.name == PHANTOMS and path.name.isdecimal():
        return phantom_case(int(path.name))
    return volume_case(path, reader)


def first_slice(seed: int) -> float:
    """Z in mm of a phantom's first slice, up to one gap further out than needed.

    Scans are not planned to the millimetre. If slices had the same distance to the valve in all
    hearts, the error of a sum of few discs would be the same in all of them.
    """
    return ABOVE_VALVE - GAP * (GOLDEN * seed % 1.0)


def phantom_case(seed: int, spacing: float = PIXEL_SPACING) -> DenseCase:
    """The end-diastolic phantom of a seed in pixels of ``spacing`` mm, without noise.

    Raises
    ------
    DataError
        If phantoms of this seed may have been trained on.
    """
    if seed < FIRST_HELD_OUT:
        raise DataError(
            f"phantom {seed}", "Networks are trained on it.", f"Use seeds from {FIRST_HELD_OUT}."
        )
    phantom, start = HeartPhantom(seed), first_slice(seed)
    positions = _places(math.ceil((phantom.apex - start) / GAP))
    stack = phantom.acquire(
        STEP, THICKNESS, spacing, FIELD_OF_VIEW, len(positions), noise=0.0, start=start
    )
    exact = phantom.volumes((0.0,))
    millilitres = {"lv": float(exact.lv[0]), "rv": float(exact.rv[0])}
    name = f"phantom-{seed}"
    return _case((name, name, "phantom"), positions, stack.data[0], spacing, millilitres)


def volume_case(path: Path, reader: Reader = read_stack) -> DenseCase:
    """A dense volume, resliced across the heart's long axis.

    The long axis is that of `LANDMARKS` for the files named there, otherwise the volume's
    third axis. Slices lie between the landmarks; without landmarks, they reach as far out as
    they still see only tissue.

    Raises
    ------
    DataError
        If voxels are larger than the step of the truth, fewer than three slices fit, or slices
        reach beyond the volume.
    """
    volume, name = reader(path), plain_stem(path.name)
    largest = float(np.linalg.norm(volume.affine[:3, :3], axis=0).max())
    if largest > STEP:
        raise DataError(
            path,
            f"Voxels of {largest:.3g} mm are no dense truth at steps of {STEP:g} mm.",
            "Give a volume of small voxels.",
        )
    # A slice ends where its profile does, see `slice_profile`.
    axis = LANDMARKS[name] if name in LANDMARKS else own_axis(volume, 0.625 * THICKNESS)
    gaps = math.floor(axis.length / GAP)
    if gaps < 2:
        raise DataError(path, "Fewer than three slices fit into it.", "Give a whole heart.")
    reslicer, positions = Reslicer(volume, axis, PIXEL_SPACING, FIELD_OF_VIEW), _places(gaps)
    outside = reslicer.outside(positions)
    if outside > MOST_OUTSIDE:
        raise DataError(
            path, f"{outside:.0%} of the slices is beyond its edge.", "Give a larger volume."
        )
    truth = reslicer.slices(positions, THICKNESS)
    names = subject_of(path), name, "volume"
    return _case(names, positions, truth, PIXEL_SPACING, {}, volume.intensity)


def _places(gaps: int) -> NDArray[np.float64]:
    """Where the truth is known, from the first slice to the last, mm."""
    return np.arange(gaps * FACTOR + 1, dtype=np.float64) * np.float64(STEP)


def _case(
    names: tuple[str, str, str],
    positions: NDArray[np.float64],
    truth: NDArray[np.generic],
    spacing: float,
    millilitres: Mapping[str, float],
    intensity: Intensity = UNSCALED,
) -> DenseCase:
    """A case of subject, name and kind, of the truth at all positions in stored units."""
    hidden = np.arange(len(positions)) % FACTOR != 0
    targets, acquired = positions[hidden], positions[~hidden]
    images = IntensityWindow.of(truth[~hidden], intensity).normalise(truth)[None]
    distance = np.abs(targets[:, None] - acquired).min(1)
    subject, name, kind = names
    return DenseCase(
        subject=subject,
        name=name,
        images=images[:, ~hidden],
        positions=acquired,
        targets=targets,
        truth=images[:, hidden],
        spacing=(spacing, spacing),
        groups={
            "source": (kind,) * len(targets),
            "distance to a slice": tuple(f"{d:.3g} mm" for d in distance),
        },
        millilitres=millilitres,
    )


def smoothness(volume: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Mean absolute second difference through-plane over that of the truth.

    1 is right; a higher value means combing or steps, a lower one blur.

    Parameters
    ----------
    volume, truth
        Shape ``(frames, slices, height, width)``, at least three evenly spaced slices.

    Returns
    -------
    float
        NaN if the truth has no curvature.
    """
    ours, theirs = (float(np.abs(np.diff(v, 2, axis=1)).mean()) for v in (volume, truth))
    return ours / theirs if theirs > 0 else math.nan


def long_axis_figures(
    volume: NDArray[np.float32], truth: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """PSNR and SSIM of both stacks of long-axis planes, pooled.

    Voxels are taken as they are: a window of SSIM is 11 pixels in-plane and 11 slices high,
    whatever their spacing. Acquired slices are part of the planes. Planes without error,
    which the edges of an image can have, are left out of the PSNR unless there are no others.

    Parameters
    ----------
    volume, truth
        Shape ``(frames, slices, height, width)``, at least 11 along every axis but the first.

    Returns
    -------
    dict
        ``psnr_long`` and ``ssim_long``, one figure each, shape ``(1,)``.
    """
    ours, theirs = (torch.from_numpy(v) for v in (volume, truth))
    figures: dict[str, NDArray[np.float64]] = {}
    for name, metric in (("psnr_long", psnr), ("ssim_long", ssim)):
        planes = torch.cat(
            [
                metric(ours.permute(order), theirs.permute(order)).flatten()
                for order in ((0, 2, 1, 3), (0, 3, 1, 2))
            ]
        )
        finite = planes[planes.isfinite()]
        mean = (finite if len(finite) else planes).double().mean()
        figures[name] = np.array([float(mean)])
    return figures


def _score(case: DenseCase, answer: NDArray[np.float32], label: Labeller | None) -> Figures:
    """Figures of an answer: one per target for the short axis, one per case for all others.

    Volume errors are in percent of the exact volume, and NaN if it is not known.
    """
    positions = np.concatenate([case.positions, case.targets])
    order = np.argsort(positions)
    volume, truth = (
        np.concatenate([case.images, between], 1)[:, order].clip(0, 1)
        for between in (answer, case.truth)
    )
    figures = image_figures(answer, case.truth) | long_axis_figures(volume, truth)
    figures["smoothness"] = np.array([smoothness(volume, truth)])
    if label:
        labels = label(volume[0], case.spacing) if case.millilitres else None
        per_pixel = slab_widths(positions[order]) * case.spacing[0] * case.spacing[1] / 1000
        for name, c in (("lv", LV), ("rv", RV)):
            error = math.nan
            if labels is not None:
                found = float((labels == c).sum((1, 2)) @ per_pixel)
                error = 100 * abs(found / case.millilitres[name] - 1)
            figures[f"{name}_error"] = np.array([error])
    return figures
