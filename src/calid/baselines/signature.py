"""The signature that every interpolation method has, ours included, and that of latent rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # classical methods do without torch
    from torch import Tensor

    from calid.models.interpolator import Neighbours

__all__ = ["LatentRule", "Method"]

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


class LatentRule(Protocol):
    """A baseline in the latent space of stage 1; it draws nothing.

    Attributes
    ----------
    default_steps
        Steps of its sampler; 1 where it has none.
    """

    default_steps: int

    def __call__(self, neighbours: Neighbours, steps: int) -> Tensor:
        """Latents of targets.

        Parameters
        ----------
        neighbours
            Of all targets of one gap: `Neighbours.adjacent` holds the same pair for each. The
            registered slices are not looked at.
        steps
            Of its sampler; without effect where it has none.

        Returns
        -------
        Tensor
            ``(targets, channels, h, w)``.
        """
