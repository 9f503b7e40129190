"""Hearts whose truth is known everywhere, and the sparse stacks that are made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calid.data.bank import find_stacks, subject_of
from calid.data.intensity import UNSCALED, IntensityWindow
from calid.data.phantom import FIRST_HELD_OUT, HeartPhantom
from calid.errors import DataError, UsageError
from calid.evaluation.case import Case
from calid.evaluation.reslice import LANDMARKS, Reslicer, own_axis, short_axis
from calid.geometry.grid import PIXEL_SPACING
from calid.io import Reader, read_stack
from calid.io.find import plain_stem
from calid.stack import Intensity

__all__ = [
    "DenseCase",
    "Scan",
    "dense_case",
    "first_slice",
    "phantom_case",
    "sources",
    "volume_case",
]

PHANTOMS = "phantoms"

ABOVE_VALVE = -14.0
"""Largest z in mm of a phantom's first slice: all of both cavities lies beyond it."""

GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples, less their whole numbers, cover an interval evenly however many there are."""

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
        Of acquired slices; see `slice_profile`.
    step
        Between the positions where the truth is known; divides the gap.
    truth_thickness
        Of the truth. With that of the slices, the truth is what the scanner would give at
        every position, as in `calid demo`; 0 is the dense volume itself, from which every
        method is as far away as a slice is thick.
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
        Exact volumes of the cavities by name, ``lv`` and ``rv``; empty if unknown.
    """

    reference: NDArray[np.float32] = field(kw_only=True)
    millilitres: Mapping[str, float] = field(default_factory=dict, kw_only=True)


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
    """Z in mm of a phantom's first slice, up to one gap further out than need be.

    No scan is planned to the millimetre. If all slices lay alike to the valve, the sum of a few
    discs would be as wrong in every heart, or as right.
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
    gaps = math.ceil((phantom.apex - start) / scan.gap)

    def acquire(gap: float, thickness: float, slices: int) -> NDArray[np.generic]:
        stack = phantom.acquire(
            gap, thickness, scan.spacing, scan.field_of_view, slices, noise=0.0, start=start
        )
        return np.asarray(stack.data[0])

    positions = scan.positions(gaps)
    truth = acquire(scan.step, scan.truth_thickness, len(positions))
    slices = truth[:: scan.factor]
    if scan.thickness != scan.truth_thickness:
        slices = acquire(scan.gap, scan.thickness, gaps + 1)
    exact = phantom.volumes((0.0,))
    millilitres = {"lv": float(exact.lv[0]), "rv": float(exact.rv[0])}
    name = f"phantom-{seed}"
    return _case((name, name, "phantom"), slices, truth, positions, scan, millilitres)


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
    truth = reslicer.slices(positions, scan.truth_thickness)
    slices = truth[:: scan.factor]
    if scan.thickness != scan.truth_thickness:
        slices = reslicer.slices(positions[:: scan.factor], scan.thickness)
    names = subject_of(path), name, "volume"
    return _case(names, slices, truth, positions, scan, {}, volume.intensity)


def _case(
    names: tuple[str, str, str],
    slices: NDArray[np.generic],
    truth: NDArray[np.generic],
    positions: NDArray[np.float64],
    scan: Scan,
    millilitres: Mapping[str, float],
    intensity: Intensity = UNSCALED,
) -> DenseCase:
    """A case of subject, name and kind; images ``(positions, height, width)``, stored units."""
    window = IntensityWindow.of(slices, intensity)
    reference = window.normalise(truth)[None]
    hidden = np.arange(len(positions)) % scan.factor != 0
    targets, acquired = positions[hidden], positions[~hidden]
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
