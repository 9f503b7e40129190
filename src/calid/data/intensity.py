"""The one intensity scale that networks see."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calid.io.contrast import contrast
from calid.stack import Intensity

__all__ = ["CEILING", "UNSCALED", "IntensityWindow"]

CEILING = 1.5
"""Values are kept up to this multiple of the window, so that bright fat is not cut off."""

UNSCALED = Intensity()
"""Stored values that are image units."""


@dataclass(frozen=True)
class IntensityWindow:
    """Linear map from stored intensities ``low`` to 0 and ``high`` to 1.

    ``low`` is the larger one if a negative slope makes small stored values bright. ``blank`` is
    the value of padding, which always becomes 0; it is NaN if there is no padding.
    """

    low: float
    high: float
    blank: float = math.nan

    @classmethod
    def of(cls, data: NDArray[np.generic], intensity: Intensity = UNSCALED) -> IntensityWindow:
        """Window of the 0.5 and 99.5 percentiles of ``data`` (any shape, stored units).

        Padding and outliers do not count; see `calid.io.contrast`. The sign of the slope says
        which end is bright. A constant image has no contrast to map; its window is one unit wide,
        so that the image becomes 0 and is restored exactly. The same holds if double precision
        cannot resolve the contrast; if it cannot resolve one unit either, the window is as narrow
        as possible.
        """
        found = contrast(data)
        low, high = found.low, found.high
        high = high if high > low else max(low + 1.0, math.nextafter(low, math.inf))
        return cls(*((high, low) if intensity.slope < 0 else (low, high)), found.blank)

    def normalise(self, data: NDArray[np.generic]) -> NDArray[np.float32]:
        """Stored units to window units, clipped to ``[0, CEILING]``."""
        scaled = (np.asarray(data, np.float32) - self.low) / (self.high - self.low)
        return self.darken(np.asarray(np.clip(scaled, 0.0, CEILING), np.float32), data)

    def darken(self, images: NDArray[np.float32], data: NDArray[np.generic]) -> NDArray[np.float32]:
        """Window units ``images``, in place, with 0 wherever stored ``data`` are padding."""
        if not math.isnan(self.blank):
            images[np.asarray(data) == self.blank] = 0
        return images
