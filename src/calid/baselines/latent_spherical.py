"""Spherical interpolation of the autoencoder's latents, as diffusion autoencoders are used."""

from __future__ import annotations

import torch
from torch import Tensor

from calid.models.interpolator import Neighbours

__all__ = ["LatentSpherical", "slerp"]

FLAT = 1e-3
"""Sine of the angle below which two latents count as parallel or opposite."""


class LatentSpherical:
    """A `LatentRule` without weights: a great circle between two latents."""

    default_steps = 1

    def __call__(self, neighbours: Neighbours, steps: int = 1) -> Tensor:
        """Latents ``(targets, channels, h, w)``; see `LatentRule`."""
        below, above = neighbours.adjacent.unbind(1)
        return slerp(below, above, neighbours.share[:, 1])


def slerp(below: Tensor, above: Tensor, share: Tensor) -> Tensor:
    """Spherical linear interpolation (Shoemake, SIGGRAPH 1985) of whole latents.

    The angle is that between the two flattened latents, and lengths are left as they are, as
    DMCVR does (He et al., MICCAI 2023). Parallel latents are its limit, a straight line; the
    great circle of opposite ones, and the angle of a zero one, are undefined: a straight line
    too.

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
