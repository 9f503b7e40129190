"""Choosing the slices that a target position sees."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from calid.models.correspondence import Context

__all__ = ["nearest_context"]


def nearest_context(
    positions: NDArray[np.float64], targets: NDArray[np.float64], per_side: int = 2
) -> Context:
    """The nearest slices on either side of every target; fewer at base and apex, masked.

    Parameters
    ----------
    positions
        Shape ``(slices,)``, mm, increasing.
    targets
        Shape ``(targets,)``, mm, each strictly between two positions.
    per_side
        Slices on either side.

    Returns
    -------
    Context
        With ``2 * per_side`` entries a target, from the lowest to the highest.

    Raises
    ------
    ValueError
        If a target is not between two slices.
    """
    upper = np.searchsorted(positions, targets)
    if np.any((upper == 0) | (upper == len(positions))):
        raise ValueError("a target lies outside the stack: interpolation has no answer there")
    index = upper[:, None] + np.arange(-per_side, per_side)
    mask = (index >= 0) & (index < len(positions))
    index = np.clip(index, 0, len(positions) - 1)
    distance = np.where(mask, positions[index] - targets[:, None], 0.0)
    return Context(
        torch.from_numpy(index), torch.from_numpy(distance).float(), torch.from_numpy(mask)
    )
