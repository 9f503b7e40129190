"""Dense truth: hearts that are known everywhere are made sparse, and compared everywhere.

A dense heart is integrated over slice profiles of 8 mm every 10 mm. Methods answer every
2 mm between the outermost slices. The truth there is what the scanner would have given: the
heart integrated over the same profile; see `Scan.truth_thickness` for thin truth. There is no
noise. Images are clipped to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from calid.data.bank import find_stacks, subject_of
from calid.data.intensity import UNSCALED, IntensityWindow
from calid.data.phantom import FIRST_HELD_OUT, HeartPhantom
from calid.errors import DataError, UsageError
from calid.evaluation.downstream import Labeller
from calid.evaluation.hidden_slices import image_figures, recoded
from calid.evaluation.metrics import psnr, ssim
from calid.evaluation.protocol import Case, Figures, Protocol
from calid.evaluation.reslice import LANDMARKS, Reslicer, own_axis, short_axis
from calid.geometry.grid import PIXEL_SPACING
from calid.inference.model import Model
from calid.io import Reader, read_stack
from calid.io.find import plain_stem
from calid.io.labels import LV, RV
from calid.segmentation.measures import slab_widths
from calid.stack import Intensity

__all__ = [
    "DenseCase",
    "Scan",
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

ABOVE_VALVE = -14.0
"""Largest z in mm of a phantom's first slice: all of both cavities lies beyond it."""

GOLDEN = (math.sqrt(5) - 1) / 2
"""The fractional parts of its multiples cover [0, 1) evenly, however many there are."""

MOST_OUTSIDE = 0.02
"""Largest share of a resliced volume that may be made up by mirroring it."""


@dataclass(frozen=True)
class Scan:
    """How a dense heart is made sparse, in mm.

    Parameters
    ----------
    gap
        Between acquired slices.
    thickness
        Of acquired slices; see `calid.data.phantom.slice_profile`.
    step
        Between the positions where the truth is known; divides the gap.
    truth_thickness
        Of the truth. As thick as the slices, the truth is what the scanner would give at every
        position, as in `calid demo`. With 0 it is the dense volume itself; then the thickness of
        the slices alone makes every method wrong.
    spacing, field_of_view
        Pixel size and largest side of the images.
    """

    gap: float = 10.0
    thickness: float = 8.0
    step: float = 2.0
    truth_thickness: float = 8.0
    spacing: float = PIXEL_SPACING
    field_of_view: float = 192.0

    def __post_init__(self) -> None:
        if self.factor < 2 or not math.isclose(self.factor * self.step, self.gap):
            raise UsageError(
                "scan",
                f"Steps of {self.step:g} mm do not divide gaps of {self.gap:g} mm.",
                "Give a gap that is two steps or more.",
            )

    @property
    def factor(self) -> int:
        """Steps in a gap."""
        return round(self.gap / self.step)

    def positions(self, gaps: int) -> NDArray[np.float64]:
        """Where the truth is known, from the first slice to the last, mm."""
        return np.arange(gaps * self.factor + 1, dtype=np.float64) * np.float64(self.step)


@dataclass(frozen=True)
class DenseCase(Case):
    """A case that knows more than the truth at its targets.

    Parameters
    ----------
    reference
        Truth at all positions, those of slices and targets together, in increasing order,
        ``(frames, slices + targets, height, width)``, window units. It differs from
        ``images`` at the slices if the truth is thinner than they are.
    millilitres
        Exact volumes of ``lv`` and ``rv``; empty if they are not known.
    """

    reference: NDArray[np.float32] = field(kw_only=True)
    millilitres: Mapping[str, float] = field(kw_only=True)


def dense(
    label: Labeller | None,
    autoencoder: Model | None,
    scan: Scan | None = None,
    reader: Reader = read_stack,
) -> Protocol:
    """The protocol.

    Parameters
    ----------
    label
        Segmentation of images ``(slices, height, width)`` of a spacing; none leaves the
        errors of volumes out.
    autoencoder
        Model whose autoencoder gives the ceiling row; none leaves it out.
    scan
        How hearts are made sparse.
    reader
        Reads the volumes.
    """
    errors = ("lv_error", "rv_error") if label else ()
    return Protocol(
        name="dense",
        load=lambda path: dense_case(path, scan, reader),
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


def dense_case(path: Path, scan: Scan | None = None, reader: Reader = read_stack) -> DenseCase:
    """A phantom if the path is a number in ``phantoms``, else the volume in that file.

    Raises
    ------
    DataError
        If a phantom was trained on, or a volume is not dense or too short.
    """
    if path.parent.name == PHANTOMS and path.name.isdecimal():
        return phantom_case(int(path.name), scan)
    return volume_case(path, scan, reader)


def first_slice(seed: int, gap: float) -> float:
    """Z in mm of a phantom's first slice, up to one gap further out than needed.

    Scans are not planned to the millimetre. If slices had the same distance to the valve in all
    hearts, the error of a sum of few discs would be the same in all of them.
    """
    return ABOVE_VALVE - gap * (GOLDEN * seed % 1.0)


def phantom_case(seed: int, scan: Scan | None = None) -> DenseCase:
    """The end-diastolic phantom of a seed, without noise or breath-hold shifts.

    Raises
    ------
    DataError
        If phantoms of this seed may have been trained on.
    """
    if seed < FIRST_HELD_OUT:
        raise DataError(
            f"phantom {seed}", "Networks are trained on it.", f"Use seeds from {FIRST_HELD_OUT}."
        )
    scan = scan or Scan()
    phantom = HeartPhantom(seed)
    start = first_slice(seed, scan.gap)

    def acquire(positions: NDArray[np.float64], thickness: float) -> NDArray[np.generic]:
        gap, slices = float(positions[1] - positions[0]), len(positions)
        stack = phantom.acquire(
            gap, thickness, scan.spacing, scan.field_of_view, slices, noise=0.0, start=start
        )
        return np.asarray(stack.data[0])

    exact = phantom.volumes((0.0,))
    millilitres = {"lv": float(exact.lv[0]), "rv": float(exact.rv[0])}
    positions = scan.positions(math.ceil((phantom.apex - start) / scan.gap))
    name = f"phantom-{seed}"
    return _case((name, name, "phantom"), positions, acquire, scan, millilitres)


def volume_case(path: Path, scan: Scan | None = None, reader: Reader = read_stack) -> DenseCase:
    """A dense volume, resliced across the heart's long axis.

    The long axis is that of `LANDMARKS` for the files named there, otherwise the volume's
    third axis. Slices lie between the landmarks, otherwise as far out as they see tissue only.

    Raises
    ------
    DataError
        If voxels are larger than the step of the truth, fewer than three slices fit, or slices
        reach beyond the volume.
    """
    scan = scan or Scan()
    volume, name = reader(path), plain_stem(path.name)
    largest = float(np.linalg.norm(volume.affine[:3, :3], axis=0).max())
    if largest > scan.step:
        raise DataError(
            path,
            f"Voxels of {largest:.3g} mm are no dense truth at steps of {scan.step:g} mm.",
            "Give a volume of small voxels.",
        )
    margin = 0.625 * max(scan.thickness, scan.truth_thickness)  # where `slice_profile` ends
    axis = short_axis(LANDMARKS[name]) if name in LANDMARKS else own_axis(volume, margin)
    gaps = math.floor(axis.length / scan.gap)
    if gaps < 2:
        raise DataError(path, "Fewer than three slices fit into it.", "Give a whole heart.")
    reslicer = Reslicer(volume, axis, scan.spacing, scan.field_of_view)
    positions = scan.positions(gaps)
    outside = reslicer.outside(positions)
    if outside > MOST_OUTSIDE:
        raise DataError(
            path, f"{outside:.0%} of the slices is beyond its edge.", "Give a larger volume."
        )
    names = subject_of(path), name, "volume"
    return _case(names, positions, reslicer.slices, scan, {}, volume.intensity)


def _case(
    names: tuple[str, str, str],
    positions: NDArray[np.float64],
    acquire: Callable[[NDArray[np.float64], float], NDArray[np.generic]],
    scan: Scan,
    millilitres: Mapping[str, float],
    intensity: Intensity = UNSCALED,
) -> DenseCase:
    """A case of subject, name and kind.

    ``acquire`` gives slices ``(positions, height, width)`` of a thickness, in stored units.
    """
    truth = acquire(positions, scan.truth_thickness)
    hidden = np.arange(len(positions)) % scan.factor != 0
    targets, acquired = positions[hidden], positions[~hidden]
    slices = truth[~hidden]
    if scan.thickness != scan.truth_thickness:
        slices = acquire(acquired, scan.thickness)
    window = IntensityWindow.of(slices, intensity)
    reference = window.normalise(truth)[None]
    distance = np.abs(targets[:, None] - acquired).min(1)
    subject, name, kind = names
    return DenseCase(
        subject=subject,
        name=name,
        images=window.normalise(slices)[None],
        positions=acquired,
        targets=targets,
        truth=reference[:, hidden],
        spacing=(scan.spacing, scan.spacing),
        groups={
            "source": (kind,) * len(targets),
            "distance to a slice": tuple(f"{d:.3g} mm" for d in distance),
        },
        reference=reference,
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
    """Short-axis figures one a target, all others one a case.

    Errors of volumes are in percent of the exact ones; NaN where these are not known.
    """
    positions = np.concatenate([case.positions, case.targets])
    order = np.argsort(positions)
    volume = np.concatenate([case.images, answer], 1)[:, order].clip(0, 1)
    truth = case.reference.clip(0, 1)
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
