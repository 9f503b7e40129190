"""Resample slices with an unusual number of frames to the cardiac phases of the others.

The phase of a frame is its trigger time divided by the length of its slice's heartbeat. Images are
interpolated linearly in phase, also from the last frame of the beat to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calid.io.heartbeat import WHOLE_CYCLE

__all__ = ["Timing", "blended", "resampling"]

UNEVEN = 1.5
"""Ratio of the longest to the shortest step from which a frame may be missing."""

COVERED = 0.85
"""Share of the heartbeat that the frames have to cover."""


@dataclass(frozen=True, eq=False)
class Timing:
    """When the frames of a slice were acquired.

    Parameters
    ----------
    times
        Seconds after the R wave, increasing; at least two where anything is computed.
    interval
        Seconds from R wave to R wave; none if headers do not tell.
    """

    times: NDArray[np.float64]
    interval: float | None

    @property
    def covered(self) -> float:
        """Seconds that the frames take together."""
        return float(np.ptp(self.times) + np.median(np.diff(self.times)))

    @property
    def beat(self) -> float:
        """Seconds of the heartbeat."""
        said = self.interval or float(self.times[-1] + np.median(np.diff(self.times)))
        # In a shorter beat the last frames would overlap the first ones.
        return max(said, self.covered)


def resampling(own: Timing, most: Sequence[Timing]) -> NDArray[np.float64] | None:
    """Weights that resample the frames of a slice to the phases of the others.

    Parameters
    ----------
    own
        Timing of the slice.
    most
        Timings of slices that agree in the number of frames.

    Returns
    -------
    NDArray or None
        The share of every own frame in every resampled one, ``(frames, own frames)``; rows add
        up to 1. None if there are too few frames for a film, if one seems to be missing, or if
        they do not cover the heartbeat.
    """
    if not most or min(len(own.times), len(most[0].times)) < WHOLE_CYCLE[0]:
        return None
    steps = np.diff(own.times)
    beat = own.interval or float(np.median([timing.beat for timing in most]))
    if steps.max() > UNEVEN * steps.min() or own.covered < COVERED * beat:
        return None
    wanted = np.median([timing.times / timing.beat for timing in most], axis=0)
    frames = np.eye(len(own.times))
    return np.stack([np.interp(wanted, own.times / own.beat, f, period=1.0) for f in frames], 1)


def blended(
    film: Sequence[NDArray[Any]], shares: NDArray[np.float64], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Frames ``(height, width)`` of a slice, resampled by what `resampling` found."""
    values = np.tensordot(shares, np.asarray(film, np.float64), axes=1)
    return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)
