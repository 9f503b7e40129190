"""A diffusion autoencoder after DMCVR, in the latent space of stage 1.

DMCVR (He et al., MICCAI 2023) reconstructs cardiac volumes with a diffusion autoencoder
(Preechakul et al., CVPR 2022): every slice becomes a semantic code and a stochastic code, which are
interpolated between neighbours by fixed rules, linear and spherical, and rendered. It works on
pixels, with a third code of its labels' shapes; here, it gets the same latents, data and training
budget as the presets, and as no other method sees labels, neither does it. Sizes are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.baselines.codes import CodeEncoder
from calid.baselines.latent_spherical import slerp
from calid.diffusion import ddim, invert, time_grid, variance_preserving
from calid.models.interpolator import FEATURES, Neighbours, believed
from calid.models.layers import fourier_features
from calid.models.unet import UNet

__all__ = ["DiffusionAutoencoder", "DiffusionAutoencoderConfig"]


@dataclass(frozen=True)
class DiffusionAutoencoderConfig:
    """Sizes: encoder and U-Net together cost what tau_1 and denoiser of the paper's preset do.

    Parameters
    ----------
    channels
        Of the latent.
    widths
        Channels of encoder and U-Net at each level.
    semantic
        Size of the semantic code.
    embedding
        Size of the vector that modulates the U-Net.
    """

    channels: int = 12
    widths: tuple[int, ...] = (96, 160, 224)
    semantic: int = 256
    embedding: int = 256


class DiffusionAutoencoder(nn.Module):
    """A `LatentRule`: encode the adjacent slices, interpolate their codes, render."""

    default_steps = 100

    def __init__(self, config: DiffusionAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        size = config.embedding
        self.semantic = CodeEncoder(config.channels, config.widths, config.semantic)
        self.condition = nn.Linear(config.semantic, size)
        self.time = nn.Sequential(nn.Linear(FEATURES, size), nn.SiLU(), nn.Linear(size, size))
        self.unet = UNet(config.channels, config.channels, config.widths, size)

    def noise(self, x: Tensor, t: Tensor, code: Tensor) -> Tensor:
        """Prediction of the noise in ``x`` at times ``t`` ``(batch,)``, given semantic codes."""
        time = self.time(fourier_features(t, FEATURES, 2.0))
        predicted: Tensor = self.unet(x, F.silu(time + self.condition(code)))[0]
        return predicted

    def invert(self, latents: Tensor, code: Tensor, steps: int) -> Tensor:
        """Stochastic codes: the noise that `render` turns into these latents."""
        predict, times = partial(self.noise, code=code), time_grid(steps, latents.device).flip(0)
        return invert(predict, believed, latents, variance_preserving, times)

    def render(self, noise: Tensor, code: Tensor, steps: int) -> Tensor:
        """Latents ``(batch, channels, h, w)`` of stochastic and semantic codes."""
        predict, times = partial(self.noise, code=code), time_grid(steps, noise.device)
        return ddim(predict, believed, noise, variance_preserving, times)

    def forward(self, neighbours: Neighbours, steps: int = default_steps) -> Tensor:
        """Latents ``(targets, channels, h, w)``; see `LatentRule`.

        ``steps`` are those of the inversion and of the rendering, each. Both adjacent slices are
        encoded and inverted once for all targets.
        """
        pair = neighbours.adjacent[0]
        share = neighbours.share[:, 1]
        code = self.semantic(pair)
        noise = self.invert(pair, code, steps)
        noise = slerp(noise[:1], noise[1:], share)
        return self.render(noise, torch.lerp(code[:1], code[1:], share[:, :, 0, 0]), steps)
