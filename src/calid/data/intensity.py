"""The one intensity scale that networks see."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CEILING", "IntensityWindow"]

CEILING = 1.5
"""Values are kept up to this multiple of the window, so that bright fat is not cut off."""


@dataclass(frozen=True)
class IntensityWindow:
    """Linear map from stored intensities to ``[0, 1]`` by two percentiles.

    Parameters
    ----------
    low, high
        Stored intensities that become 0 and 1.
    """

    low: float
    high: float

    @classmethod
    def of(cls, data: NDArray[np.generic]) -> IntensityWindow:
        """Window of the 0.5 and 99.5 percentiles of ``data`` (any shape, stored units).

        A constant image has no contrast to map; its window is one unit wide, so that it
        becomes 0 and comes back as it was. So it is with one whose contrast is beyond double
        precision; where a unit is beyond it too, the window is as narrow as it can be.
        """
        low, high = _percentiles(data, (0.5, 99.5))
        return cls(low, high if high > low else max(low + 1.0, math.nextafter(low, math.inf)))

    def normalise(self, data: NDArray[np.generic]) -> NDArray[np.float32]:
        """Stored units to window units, clipped to ``[0, CEILING]``."""
        scaled = (np.asarray(data, np.float32) - self.low) / (self.high - self.low)
        return np.asarray(np.clip(scaled, 0.0, CEILING), np.float32)

    def restore(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        """Window units back to stored units, not rounded."""
        return np.asarray(data * (self.high - self.low) + self.low, np.float32)


def _percentiles(data: NDArray[np.generic], percent: tuple[float, ...]) -> list[float]:
    """Percentiles by linear interpolation, in double precision but without a copy in it.

    `numpy.percentile` of a film in float64 would take four times the film's memory.
    """
    place = np.asarray(percent) / 100 * (data.size - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, data.size - 1)
    ordered = np.partition(data, np.unique([below, above]), axis=None)
    low, high = ordered[below].astype(np.float64), ordered[above].astype(np.float64)
    return [float(v) for v in low + (high - low) * (place - below)]
