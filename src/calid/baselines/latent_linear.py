"""Linear interpolation of the autoencoder's latents: the bottom line of any latent method."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calid.models.context import Acquired
from calid.models.interpolator import Draw, Filled

__all__ = ["LatentLinear", "neighbours"]


class LatentLinear:
    """A `LatentFiller` without weights or chance: a straight line between two latents."""

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
        return Filled((1 - share) * below + share * above)


def neighbours(
    latents: Tensor, positions: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[Tensor, Tensor, Tensor]:
    """The two slices about each target, and where it lies between them.

    Parameters
    ----------
    latents
        Shape ``(slices, channels, h, w)``; at least two slices.
    positions, targets
        mm, increasing; targets between the outermost positions.

    Returns
    -------
    tuple
        Latents below and above, ``(targets, channels, h, w)``, and the share of the gap below
        the target, in ``[0, 1]``, ``(targets, 1, 1, 1)``.
    """
    upper = np.clip(np.searchsorted(positions, targets), 1, len(positions) - 1)
    low, high = positions[upper - 1], positions[upper]
    share = torch.from_numpy((targets - low) / (high - low)).to(latents)
    index = torch.from_numpy(upper).to(latents.device)
    return latents[index - 1], latents[index], share[:, None, None, None]
