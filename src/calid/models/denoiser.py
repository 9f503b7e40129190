"""The denoising U-Net and tau_2, which injects the conditional embedding at every level."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.layers import ChannelNorm, ResidualBlock, conv, fourier_features, zero_conv
from calid.models.temporal import STILL, Frames, temporal_layers

__all__ = ["Denoiser", "Injected", "Injection"]

Injected = tuple[list[Tensor], list[Tensor]]
"""Maps that tau_2 adds on the way down and on the way up, from fine to coarse."""


class Injection(nn.Module):
    """tau_2: one projection per level, added to the denoiser's features there.

    How the paper injects is not known; adding a projected map at each resolution, on the way
    down and on the way up, is our choice.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Sequential(ChannelNorm(w), conv(w, w, 1)) for w in widths)
        self.up = nn.ModuleList(nn.Sequential(ChannelNorm(w), conv(w, w, 1)) for w in widths)

    def forward(self, pyramid: Sequence[Tensor]) -> Injected:
        """Maps to add, of tau_1's ``pyramid``, which runs from fine to coarse."""
        down = [layer(level) for layer, level in zip(self.down, pyramid, strict=True)]
        up = [layer(level) for layer, level in zip(self.up, pyramid, strict=True)]
        return down, up


class Denoiser(nn.Module):
    """U-Net on latents; what its output means (noise, velocity) is the objective's choice.

    Parameters
    ----------
    channels
        Of the latent.
    widths
        Channels per level, from full latent resolution down by factors of two.
    embedding
        Size of the time embedding.
    temporal
        Heads of the layers that mix over the frames of a film; 0 for none.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], embedding: int = 128, temporal: int = 0
    ) -> None:
        super().__init__()
        self.time = nn.Sequential(
            nn.Linear(32, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.entry = conv(channels, widths[0])
        self.inject = Injection(widths)
        self.down = nn.ModuleList(ResidualBlock(w, embedding) for w in widths)
        self.shrink = nn.ModuleList(conv(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.middle = ResidualBlock(widths[-1], embedding)
        self.grow = nn.ModuleList(conv(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(ResidualBlock(w, embedding) for w in widths)
        self.mix = temporal_layers(widths, temporal)
        self.exit = nn.Sequential(ChannelNorm(widths[0]), nn.SiLU(), zero_conv(widths[0], channels))

    def forward(self, x: Tensor, t: Tensor, injected: Injected, frames: Frames = STILL) -> Tensor:
        """Prediction of ``x``'s shape.

        Parameters
        ----------
        x
            Noisy latents ``(batch, channels, height, width)``; height and width are multiples
            of ``2 ** (levels - 1)``.
        t
            Times ``(batch,)`` in ``[0, 1]``.
        injected
            What `inject` makes of tau_1's maps, one per level, ``(batch, width, height /
            2**level, ...)``; the same at every step of a sampler.
        frames
            That the batch runs over, as `calid.models.context.Context` has it.
        """
        embedding = F.silu(self.time(fourier_features(t, 32, period=2.0)))
        into_down, into_up = injected
        skips = []
        h = self.entry(x)
        for level, block in enumerate(self.down):
            h = block(h + into_down[level], embedding)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        h = self.middle(h, embedding)
        for level in reversed(range(len(self.up))):
            if level < len(self.grow):
                h = self.grow[level](F.interpolate(h, scale_factor=2.0)) + skips[level]
            h = self.up[level](h + into_up[level], embedding)
            for mix in self.mix[level : level + 1]:
                h = mix(h, frames)
        out: Tensor = self.exit(h).float()
        return out
