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

    ``low`` is the larger one where a negative slope makes bright of small stored values. ``blank``
    becomes 0 wherever it lies: padding; not a number for none.
    """

    low: float
    high: float
    blank: float = math.nan

    @classmethod
    def of(cls, data: NDArray[np.generic], intensity: Intensity = UNSCALED) -> IntensityWindow:
        """Window of the 0.5 and 99.5 percentiles of ``data`` (any shape, stored units).

        Padding and outliers are left out of them; see `calid.io.contrast`. The sign of the slope
        says which end is bright. A constant image has no contrast to map; its window is one unit
        wide, so that it becomes 0 and comes back as it was. So it is with one whose contrast is
        beyond double precision; where a unit is beyond it too, the window is as narrow as it can
        be.
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
