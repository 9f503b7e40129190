"""Deterministic regression: the context of the default preset, one pass, no diffusion.

What a U-Net alone can do: no registration, no correspondence, no sampling. A diffusion model
that does not beat it in squared error, where it is strong, has to win in sharpness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from calid.models.context import Acquired, Context, nearest_context
from calid.models.interpolator import Draw, Filled
from calid.models.layers import fourier_features
from calid.models.unet import UNet

__all__ = ["RegressionConfig", "RegressionInterpolator"]

EMBEDDING = 128
FEATURES = 32
PERIOD = 160.0
"""Longest wavelength of the distance features in mm, as in tau_1."""


@dataclass(frozen=True)
class RegressionConfig:
    """Sizes of the regression.

    Parameters
    ----------
    channels
        Of the latent.
    widths
        Channels of the U-Net at each level.
    per_side
        Context slices on either side.
    """

    channels: int = 8
    widths: tuple[int, ...] = (80, 144, 208)
    per_side: int = 2


class RegressionInterpolator(nn.Module):
    """A U-Net from the latents of the context to the target's, conditioned on all distances.

    Its output is added to the distance-weighted blend of the nearest two slices, scaled by
    `Context.gate` as every correction of the default preset is: at an acquired position the
    answer is the acquired latent, and untrained it is linear interpolation of latents.
    """

    default_steps = 1
    sees_films = False

    def __init__(self, config: RegressionConfig) -> None:
        super().__init__()
        self.config = config
        context = 2 * config.per_side
        self.place = nn.Sequential(
            nn.Linear(context * (FEATURES + 1), EMBEDDING),
            nn.SiLU(),
            nn.Linear(EMBEDDING, EMBEDDING),
        )
        self.unet = UNet(context * config.channels, config.channels, config.widths, EMBEDDING)

    @property
    def reach(self) -> int:
        """See `LatentFiller.reach`."""
        return self.config.per_side

    def forward(self, latents: Tensor, context: Context) -> Tensor:
        """Estimate of the conditional mean ``(targets, channels, h, w)``.

        Parameters
        ----------
        latents
            Of the slices that ``context`` indexes, ``(slices, channels, h, w)``.
        context
            ``2 * per_side`` columns, from the lowest slice to the highest.
        """
        there = context.mask
        seen = latents[context.index].masked_fill(~there[..., None, None, None], 0.0)
        features = fourier_features(context.distance, FEATURES, PERIOD)
        features = torch.cat([features * there[..., None], there[..., None]], -1)
        embedding = F.silu(self.place(features.flatten(1)))
        correction: Tensor = self.unet(seen.flatten(1, 2), embedding)[0]
        return _blend(latents, context) + context.gate[:, None, None, None] * correction

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
        """See `LatentFiller.fill`; there is nothing to draw, so the last three are ignored."""
        context = nearest_context(positions, targets, self.config.per_side)
        return Filled(self(acquired.latents, context.to(acquired.latents.device)))


def _blend(latents: Tensor, context: Context) -> Tensor:
    """Linear interpolation between the nearest slices below and above."""
    columns = torch.cat(context.nearest(), 1)
    index, reach = context.index.gather(1, columns), context.distance.gather(1, columns).abs()
    share = (reach.flip(1) / reach.sum(1, keepdim=True))[..., None, None, None]
    return (share * latents[index]).sum(1)
