"""Fixed rules that interpolate pixel by pixel, and the signature of every method, ours included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Method", "cubic", "linear", "nearest"]

Method = Callable[
    [NDArray[np.float32], NDArray[np.float64], NDArray[np.float64], tuple[float, float]],
    NDArray[np.float32],
]
"""``method(images, positions, targets, spacing)`` interpolates through-plane.

Parameters
----------
images
    Acquired slices, ``(slices, height, width)``, window units.
positions, targets
    mm, increasing; every target between the outermost positions.
spacing
    In-plane ``(row, column)`` spacing in mm.

Returns
-------
NDArray
    ``(targets, height, width)``.
"""


def nearest(
    images: NDArray[np.float32],
    positions: NDArray[np.float64],
    targets: NDArray[np.float64],
    spacing: tuple[float, float],
) -> NDArray[np.float32]:
    """See `Method`: the nearest slice; of two that are equally near, the lower."""
    closest = np.abs(targets[:, None] - positions).argmin(axis=1)
    return images[closest, :, :]


def linear(
    images: NDArray[np.float32],
    positions: NDArray[np.float64],
    targets: NDArray[np.float64],
    spacing: tuple[float, float],
) -> NDArray[np.float32]:
    """See `Method`: linear interpolation, what most viewers and pipelines do."""
    upper = np.clip(np.searchsorted(positions, targets), 1, len(positions) - 1)
    low, high = positions[upper - 1], positions[upper]
    share = ((targets - low) / (high - low)).astype(np.float32)[:, None, None]
    return (1 - share) * images[upper - 1] + share * images[upper]


def cubic(
    images: NDArray[np.float32],
    positions: NDArray[np.float64],
    targets: NDArray[np.float64],
    spacing: tuple[float, float],
) -> NDArray[np.float32]:
    """See `Method`: cubic B-spline with not-a-knot ends (de Boor, Springer, 1978).

    ``n`` slices determine a spline of degree ``min(3, n - 1)``: three slices a parabola, two a
    line, one a constant. The spline may overshoot the range of the slices.
    """
    from scipy.interpolate import make_interp_spline  # slow to import; linear does without

    count = len(positions)
    # The spline is linear in the slices: splines of unit vectors give the weights of all slices.
    cardinal = make_interp_spline(positions, np.eye(count), k=min(3, count - 1))
    weights = cardinal(targets).astype(np.float32)
    return np.tensordot(weights, images, axes=1)
