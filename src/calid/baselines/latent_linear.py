"""Linear interpolation of the autoencoder's latents: the bottom line of any latent method."""

from __future__ import annotations

from torch import Tensor

from calid.models.interpolator import Neighbours

__all__ = ["LatentLinear"]


class LatentLinear:
    """A `LatentRule` without weights: a straight line between two latents."""

    default_steps = 1

    def __call__(self, neighbours: Neighbours, steps: int = 1) -> Tensor:
        """Latents ``(targets, channels, h, w)``; see `LatentRule`."""
        return neighbours.weighted(neighbours.adjacent)
