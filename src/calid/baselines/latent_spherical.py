"""Spherical interpolation of the autoencoder's latents, as diffusion autoencoders are used."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calid.baselines.latent_linear import neighbours
from calid.models.context import Acquired
from calid.models.interpolator import Draw, Filled

__all__ = ["LatentSpherical", "slerp"]

FLAT = 1e-3
"""Sine of the angle below which two latents count as parallel or opposite."""


class LatentSpherical:
    """A `LatentFiller` without weights or chance: a great circle between two latents."""

    default_steps = 1
    reach = None
    sees_films = False

    @torch.no_grad()
    def fill(
        self,
        acquired: Acquired,
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        draw: Draw | None,
        steps: int,
        temperature: float,
    ) -> Filled:
        """See `LatentFiller.fill`; there is nothing to draw, so the mean is the only answer.

        Parameters
        ----------
        acquired
            The slices, encoded; at least two.
        positions, targets
            mm; ``(slices,)`` and ``(targets,)``, increasing; targets between the outermost
            positions.
        draw, steps, temperature
            Without effect.

        Returns
        -------
        Filled
            Latents ``(targets, channels, h, w)``; nothing else is known.
        """
        below, above, share = neighbours(acquired.latents, positions, targets)
        return Filled(slerp(below, above, share))


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
