"""Fixed rules between latents of stage 1, and the signature of every baseline that works there."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from calid.models.interpolator import Neighbours

__all__ = ["LatentLinear", "LatentRule", "LatentSpherical", "slerp"]

FLAT = 1e-3
"""Sine of the angle below which two latents count as parallel or opposite."""


class LatentRule(Protocol):
    """A deterministic baseline in the latent space of stage 1.

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
            Of all targets of one gap: `Neighbours.adjacent` holds the same pair for each. Rules
            do not use the registered slices.
        steps
            Of its sampler; without effect where it has none.

        Returns
        -------
        Tensor
            ``(targets, channels, h, w)``.
        """


class LatentLinear:
    """A `LatentRule` without weights: a straight line between two latents."""

    default_steps = 1

    def __call__(self, neighbours: Neighbours, steps: int = 1) -> Tensor:
        """Latents ``(targets, channels, h, w)``; see `LatentRule`."""
        return neighbours.weighted(neighbours.adjacent)


class LatentSpherical:
    """A `LatentRule` without weights: a great circle, as in diffusion autoencoders."""

    default_steps = 1

    def __call__(self, neighbours: Neighbours, steps: int = 1) -> Tensor:
        """Latents ``(targets, channels, h, w)``; see `LatentRule`."""
        below, above = neighbours.adjacent.unbind(1)
        return slerp(below, above, neighbours.share[:, 1])


def slerp(below: Tensor, above: Tensor, share: Tensor) -> Tensor:
    """Spherical linear interpolation (Shoemake, SIGGRAPH 1985) of whole latents.

    The angle is that between the two flattened latents; lengths stay as they are, as in DMCVR
    (He et al., MICCAI 2023). A straight line takes the place of the great circle for parallel
    latents, where it is the limit, and for opposite or zero ones, where there is no such circle.

    Parameters
    ----------
    below, above
        Shape ``(batch, channels, h, w)``.
    share
        Shape ``(batch, 1, 1, 1)``; 0 gives ``below``, 1 gives ``above``.

    Returns
    -------
    Tensor
        Shape ``(batch, channels, h, w)``.
    """
    # Half the angle from the sum and difference of unit vectors: exact where arccos is not.
    first, second = (x / _norm(x).clamp(min=1e-12) for x in (below, above))
    angle = 2 * torch.atan2(_norm(first - second), _norm(first + second))
    sine = torch.sin(angle)
    defined = (sine > FLAT) & (_norm(below) > 0) & (_norm(above) > 0)
    safe = torch.where(defined, sine, torch.ones_like(sine))
    from_below = torch.where(defined, torch.sin((1 - share) * angle) / safe, 1 - share)
    from_above = torch.where(defined, torch.sin(share * angle) / safe, share)
    return from_below * below + from_above * above


def _norm(x: Tensor) -> Tensor:
    """Length of every flattened latent, ``(batch, 1, 1, 1)``."""
    length: Tensor = torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
    return length
