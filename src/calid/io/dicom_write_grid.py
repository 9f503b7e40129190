"""What the images of a derived series show: 16-bit values, in planes of the patient (LPS, mm)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from calid.errors import CalidWarning, GeometryError, IntensityError
from calid.geometry.affine import check
from calid.io.contrast import contrast
from calid.stack import Intensity, Volume

__all__ = ["Headers", "Pixels", "Planes", "match_headers", "planes", "to_16_bit"]

Headers = Sequence[Sequence[Dataset]]
"""Source slices without pixels, ``[frame][slice]``."""

EQUAL_STEPS = 0.01
"""Largest relative difference between steps that are called one spacing."""

_LEVELS = 2**16 - 1
_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Planes:
    """The planes of a volume's slices.

    Parameters
    ----------
    orientation
        Shape ``(6,)``; unit vectors along a row, then along a column, at right angles.
    corners
        Shape ``(slices, 3)``; mm, the centre of the first pixel of every slice.
    direction
        Shape ``(3,)``; unit vector from the first slice to the last.
    spacing
        In-plane ``(row step, column step)`` in mm.
    step
        From slice to slice in mm; none if the steps differ.
    """

    orientation: NDArray[np.float64]
    corners: NDArray[np.float64]
    direction: NDArray[np.float64]
    spacing: tuple[float, float]
    step: float | None

    @property
    def locations(self) -> NDArray[np.float64]:
        """Distance of every slice from the origin along the normal, mm, shape ``(slices,)``."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return self.corners @ normal


def planes(volume: Volume) -> Planes:
    """Planes of a volume: RAS+ turned to LPS+, true slice positions kept.

    Raises
    ------
    GeometryError
        If the volume's affine cannot be used.
    """
    affine = check(volume.affine, "volume")
    axes = _TO_LPS @ affine[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    row, column, direction = axes.T
    # DICOM wants right angles; an affine may be off by as much as `check` tolerates.
    column = column - (column @ row) * row
    column /= np.linalg.norm(column)
    # The affine's planes are even; acquired slices may lie beside theirs, generated ones do not.
    step = float(np.linalg.norm(affine[:3, 2]))
    along = volume.positions - step * np.arange(len(volume.positions))
    on_plane = np.ones_like(volume.acquired) if volume.acquired.all() else ~volume.acquired
    heights = volume.positions - along[on_plane].mean()
    corners = _TO_LPS @ affine[:3, 3] + heights[:, None] * direction
    steps = np.diff(heights)
    equal = steps.size > 0 and float(np.ptp(steps)) <= EQUAL_STEPS * float(steps.mean())
    return Planes(
        # Rounded far below any scanner's precision, and without minus zeros.
        orientation=np.concatenate([row, column]).round(12) + 0.0,
        corners=corners.round(9) + 0.0,
        direction=direction,
        spacing=volume.pixel_spacing,
        step=float(steps.mean()) if equal else None,
    )


def match_headers(headers: Headers, volume: Volume, places: Planes) -> list[list[Dataset]]:
    """Source headers in the order of the volume's acquired slices, ``[frame][acquired slice]``.

    Headers are matched by position, so that a stack which runs against its files' numbers
    keeps the right ones.

    Raises
    ------
    GeometryError
        If a frame's headers do not lie one by one where the acquired slices are.
    """
    corners = places.corners[volume.acquired]
    gaps = np.diff(volume.positions[volume.acquired])
    reach = float(gaps.min()) / 2 if gaps.size else np.inf
    frames = volume.data.shape[0]
    if len(headers) != frames or any(len(frame) != len(corners) for frame in headers):
        raise GeometryError(
            "headers",
            f"{frames} frames of {len(corners)} acquired slices need one header each.",
            "Pass the headers of the stack that was reconstructed.",
        )
    matched = []
    for number, frame in enumerate(headers):
        found = np.array([header.ImagePositionPatient for header in frame], dtype=np.float64)
        off = np.abs((found[None] - corners[:, None]) @ places.direction)
        order = off.argmin(axis=1)
        if len(set(order.tolist())) < len(corners) or float(off.min(axis=1).max()) >= reach:
            raise GeometryError(
                "headers",
                f"In frame {number + 1} they do not lie where the acquired slices are.",
                "Pass the headers of the stack that was reconstructed.",
            )
        matched.append([frame[index] for index in order])
    return matched


@dataclass(frozen=True, eq=False)
class Pixels:
    """16-bit integers and what they mean.

    Parameters
    ----------
    data
        ``int16`` or ``uint16``, shape ``(frames, slices, height, width)``.
    intensity
        Slope and intercept that give image units.
    window
        Centre and width for display, image units.
    kept
        What became of the values, for the record.
    """

    data: NDArray[np.integer[Any]]
    intensity: Intensity
    window: tuple[float, float]
    kept: str = "unchanged"


def to_16_bit(volume: Volume) -> Pixels:
    """Whole numbers that fit 16 bits stay as they are; all else is quantised.

    Quantised values use the whole unsigned range, with slope and intercept to undo it. Whole
    numbers that span no more than 65535 are shifted only, without loss.

    Raises
    ------
    IntensityError
        If a value is not a finite real number.

    Warns
    -----
    CalidWarning
        If quantisation changes values, with the largest change in image units.
    """
    data: NDArray[Any] = volume.data
    if data.dtype.kind not in "iuf":
        raise IntensityError(
            "volume", f"DICOM images hold real numbers, not {data.dtype}.", "Use magnitudes."
        )
    low, high = float(data.min()), float(data.max())
    if not np.isfinite(high - low):
        raise IntensityError("volume", "Some values are NaN or infinite.", "Fill them first.")
    whole = data.dtype.kind in "iu" or all(np.array_equal(x, np.rint(x)) for x in data)
    scale, window = volume.intensity, _window(volume)
    for dtype in (np.uint16, np.int16):
        if whole and np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return Pixels(data.astype(dtype), scale, window)
    step = (high - low) / _LEVELS or 1.0
    if whole:
        step = float(np.ceil(step))
    levels = np.empty(data.shape, np.uint16)
    for frame, values in zip(levels, data, strict=True):
        frame[:] = np.rint((values.astype(np.float64) - low) / step).clip(0, _LEVELS)
    kept = "unchanged"
    if not whole or step > 1:
        kept = "quantised to 16 bits"
        loss = step / 2 * abs(scale.slope)
        warnings.warn(
            f"DICOM holds 16-bit integers, so {data.dtype} values are quantised there: they "
            f"change by up to {loss:.2g}, {50 / _LEVELS:.1g} % of their range.",
            CalidWarning,
            stacklevel=3,
        )
    shifted = Intensity(step * scale.slope, low * scale.slope + scale.intercept)
    return Pixels(levels, shifted, window, kept)


def _window(volume: Volume) -> tuple[float, float]:
    """One window for all slices: the contrast of the acquired ones."""
    found = contrast(volume.data[:, volume.acquired])
    ends = np.array([found.low, found.high])
    low, high = np.sort(ends * volume.intensity.slope + volume.intensity.intercept)
    return float(low + high) / 2, float(high - low) or 1.0
