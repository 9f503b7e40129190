"""Deterministic regression: the slices that the default preset sees, one pass, no diffusion.

What a U-Net alone can do: no registration, no sampling. A diffusion model that does not beat it in
squared error, where it is strong, has to win in sharpness.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.interpolator import FEATURES, PERIOD, Neighbours
from calid.models.layers import fourier_features
from calid.models.unet import UNet

__all__ = ["RegressionConfig", "RegressionInterpolator"]


@dataclass(frozen=True)
class RegressionConfig:
    """Sizes of the regression; a pass costs what one of the default preset's tau_1 does.

    Parameters
    ----------
    channels
        Of the latent.
    widths
        Channels of the U-Net at each level.
    embedding
        Size of the vector that the distances become.
    """

    channels: int = 12
    widths: tuple[int, ...] = (96, 160, 224)
    embedding: int = 128


class RegressionInterpolator(nn.Module):
    """A `LatentRule`: ``b + g f(c)`` of two slices on either side, as they are, and distances.

    ``b`` is the straight line between the adjacent latents, ``g`` the gate and ``f`` a U-Net: at
    an acquired position the answer is the acquired latent, and untrained it is `LatentLinear`.
    """

    default_steps = 1

    def __init__(self, config: RegressionConfig) -> None:
        super().__init__()
        self.config = config
        size = config.embedding
        self.place = nn.Sequential(
            nn.Linear(4 * FEATURES + 2, size), nn.SiLU(), nn.Linear(size, size)
        )
        self.unet = UNet(4 * config.channels, config.channels, config.widths, size)

    def forward(self, neighbours: Neighbours, steps: int = 1) -> Tensor:
        """Estimate of the conditional mean ``(targets, channels, h, w)``; see `LatentRule`."""
        distance = neighbours.distance
        # Whether there are next slices: a missing one is not a grey one.
        there = (distance[:, 2:] != 0).to(distance.dtype)
        features = fourier_features(distance, FEATURES, PERIOD).flatten(1)
        embedding = F.silu(self.place(torch.cat([features, there], 1)))
        seen = torch.cat([neighbours.adjacent, neighbours.beyond], 1).flatten(1, 2)
        correction: Tensor = self.unet(
            seen.contiguous(memory_format=torch.channels_last), embedding
        )[0]
        return neighbours.weighted(neighbours.adjacent) + neighbours.gate * correction
