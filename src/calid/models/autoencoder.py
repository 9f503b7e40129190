"""Stage 1: a KL autoencoder from a short-axis slice to a small latent and back.

A slice of ``height x width`` becomes ``channels x height/4 x width/4``. The first and the
last factor of two are pixel (un)shuffles, so no convolution runs at full resolution: this
is what makes it cheap on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calid.models.layers import PixelNorm, ResidualBlock, conv

__all__ = ["Autoencoder", "AutoencoderConfig", "Posterior"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder.

    Parameters
    ----------
    latent_channels
        Channels of the latent.
    widths
        Channels at half and at quarter resolution.
    encoder_depth, decoder_depth
        Residual blocks at half and at quarter resolution.
    """

    latent_channels: int = 12
    widths: tuple[int, int] = (64, 128)
    encoder_depth: tuple[int, int] = (1, 2)
    decoder_depth: tuple[int, int] = (2, 3)


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian q(z|x), in the encoder's raw scale."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised sample for standard normal ``noise`` of the mean's shape."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self) -> Tensor:
        """Mean KL divergence from the unit Gaussian, nats per latent element."""
        kl = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * kl.mean()


class Autoencoder(nn.Module):
    """Slices in window units to unit-variance latents and back."""

    downsampling = 4

    mean: Tensor
    std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        half, quarter = config.widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            conv(4, half),
            *(ResidualBlock(half, norm=PixelNorm) for _ in range(config.encoder_depth[0])),
            conv(half, quarter, stride=2),
            *(ResidualBlock(quarter, norm=PixelNorm) for _ in range(config.encoder_depth[1])),
            PixelNorm(quarter),
            nn.SiLU(),
            conv(quarter, 2 * config.latent_channels),
        )
        self.decoder = nn.Sequential(
            conv(config.latent_channels, quarter),
            *(ResidualBlock(quarter, norm=PixelNorm) for _ in range(config.decoder_depth[1])),
            conv(quarter, 4 * half, kernel=1),
            nn.PixelShuffle(2),
            *(ResidualBlock(half, norm=PixelNorm) for _ in range(config.decoder_depth[0])),
            PixelNorm(half),
            nn.SiLU(),
            conv(half, 4),
            nn.PixelShuffle(2),
        )
        # Measured on the training slices at the end of stage 1, so that latents have mean 0
        # and variance 1 in every channel.
        self.register_buffer("mean", torch.zeros(config.latent_channels, 1, 1))
        self.register_buffer("std", torch.ones(config.latent_channels, 1, 1))

    def posterior(self, images: Tensor) -> Posterior:
        """q(z|x) of images ``(batch, 1, height, width)`` in window units ``[0, 1.5]``.

        Height and width are multiples of 4.
        """
        mean, log_variance = self.encoder(2 * images - 1).float().chunk(2, 1)
        return Posterior(mean, log_variance.clamp(-12, 4))

    def render(self, raw: Tensor) -> Tensor:
        """Images ``(batch, 1, height, width)`` of raw latents, in window units."""
        images: Tensor = self.decoder(raw).float()
        return (images + 1) / 2

    def encode(self, images: Tensor) -> Tensor:
        """Unit-variance latents ``(batch, channels, height/4, width/4)``; the posterior mean."""
        return (self.posterior(images).mean - self.mean) / self.std

    def decode(self, latents: Tensor) -> Tensor:
        """Images ``(batch, 1, height, width)`` in window units of unit-variance latents."""
        return self.render(latents * self.std + self.mean)
