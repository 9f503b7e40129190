"""Linear interpolation: what most viewers and pipelines do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["linear"]


def linear(
    images: NDArray[np.float32],
    positions: NDArray[np.float64],
    targets: NDArray[np.float64],
    spacing: tuple[float, float],
) -> NDArray[np.float32]:
    """See `Method`."""
    upper = np.clip(np.searchsorted(positions, targets), 1, len(positions) - 1)
    low, high = positions[upper - 1], positions[upper]
    share = ((targets - low) / (high - low)).astype(np.float32)[:, None, None]
    return (1 - share) * images[upper - 1] + share * images[upper]
