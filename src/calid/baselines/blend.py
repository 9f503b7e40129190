"""The registered neighbours alone, weighted by distance: what the default preset starts from.

Nothing is learned and no network runs; see `calid.models.motion`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from calid.geometry.pixels import PixelGrid
from calid.models.interpolator import Neighbours
from calid.models.motion import registered

__all__ = ["blend"]


def blend(
    images: NDArray[np.float32],
    positions: NDArray[np.float64],
    targets: NDArray[np.float64],
    spacing: tuple[float, float],
) -> NDArray[np.float32]:
    """A `Method`."""
    grid = PixelGrid.of(images.shape, spacing)
    acquired = grid.enter(torch.from_numpy(images))
    out = []
    for target, upper in zip(targets, np.searchsorted(positions, targets), strict=True):
        pair = acquired[None, upper - 1 : upper + 1]
        apart = np.append(positions[upper - 1 : upper + 1] - target, [0.0, 0.0])
        distance = torch.from_numpy(apart).float()[None]
        known = Neighbours(pair, distance, pair, pair)
        moved = registered(pair, distance[:, :2], known.gate)
        out.append(known.weighted(moved))
    answer: NDArray[np.float32] = grid.leave(torch.cat(out)).numpy()
    return answer
