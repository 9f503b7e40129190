"""Nearest neighbour: the stack as it was acquired."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["nearest"]


def nearest(
    images: NDArray[np.float32],
    positions: NDArray[np.float64],
    targets: NDArray[np.float64],
    spacing: tuple[float, float],
) -> NDArray[np.float32]:
    """See `Method`; ties go to the lower slice."""
    closest = np.abs(targets[:, None] - positions).argmin(axis=1)
    return images[closest, :, :]
