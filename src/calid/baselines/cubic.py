"""Cubic B-spline interpolation through-plane, at the true positions of the slices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

__all__ = ["cubic"]

DEGREE = 3


def cubic(
    images: NDArray[np.float32],
    positions: NDArray[np.float64],
    targets: NDArray[np.float64],
    spacing: tuple[float, float],
) -> NDArray[np.float32]:
    """See `Method`; interpolating spline with not-a-knot ends (de Boor, Springer, 1978).

    ``n`` slices determine a spline of degree ``min(3, n - 1)``: three slices a parabola, two a
    line, one a constant. It may overshoot the range of the slices.

    Parameters
    ----------
    images
        ``(slices, height, width)``, window units.
    positions, targets
        mm, increasing, at any distances; every target between the outermost positions.
    spacing
        In-plane ``(row, column)`` spacing in mm, which does not matter here.

    Returns
    -------
    NDArray
        ``(targets, height, width)``, window units, equal to a slice at its position.
    """
    count = len(positions)
    # The spline is linear in the slices: those of the unit vectors give the weights of all.
    cardinal = make_interp_spline(positions, np.eye(count), k=min(DEGREE, count - 1))
    weights = cardinal(targets).astype(np.float32)
    return np.tensordot(weights, images, axes=1)
