"""The signature that every interpolation method has, ours included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Method"]

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
