"""How well two masks agree.

The rule for empty masks, everywhere: if both are empty there is nothing to compare, and the
figure is NaN, which means leave it out; if one is empty, Dice is 0 and the distance is the
diagonal of the other one's bounding box.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["dice", "hausdorff95"]


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Twice the overlap over the sum of sizes (Dice, Ecology 1945).

    Parameters
    ----------
    prediction, truth
        Of any equal shape.

    Returns
    -------
    float
        In ``[0, 1]``, or NaN if both are empty.
    """
    total = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / total if total else math.nan


def hausdorff95(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, ...]
) -> float:
    """95th percentile of the distances between two borders, in mm.

    Distances of both directions are pooled; a border is what an erosion by one pixel takes
    away.

    Parameters
    ----------
    prediction, truth
        Of any equal shape.
    spacing
        Of the pixels along every axis, mm.

    Returns
    -------
    float
        Not negative, or NaN if both are empty.
    """
    if not prediction.any() and not truth.any():
        return math.nan
    if not prediction.any() or not truth.any():
        extent = [
            (np.ptp(axis) + 1) * step
            for axis, step in zip(np.nonzero(prediction | truth), spacing, strict=True)
        ]
        return math.hypot(*extent)
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, truth)]
    away = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
    distances = np.concatenate([away[1][borders[0]], away[0][borders[1]]])
    return float(np.percentile(distances, 95))
