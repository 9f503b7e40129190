"""Stored values as the 16-bit integers that DICOM images hold."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calid.errors import CalidWarning, IntensityError
from calid.io.contrast import contrast
from calid.stack import Intensity, Volume

__all__ = ["Pixels", "to_16_bit"]

_LEVELS = 2**16 - 1


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
