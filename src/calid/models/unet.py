"""The U-Net of the method: tau_1, the denoiser and the transport are three of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.layers import ChannelNorm, ResidualBlock, conv, zero_conv

__all__ = ["Injection", "UNet"]


class UNet(nn.Module):
    """Maps to maps of the same size; the output is zero before training.

    Parameters
    ----------
    inputs, outputs
        Channels; 0 outputs for a U-Net that is asked for its features alone.
    widths
        Channels per level, from full resolution down by factors of two.
    embedding
        Size of the vector that modulates every residual block.
    """

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], embedding: int) -> None:
        super().__init__()
        self.entry = conv(inputs, widths[0])
        self.down = nn.ModuleList(ResidualBlock(w, embedding) for w in widths)
        self.shrink = nn.ModuleList(conv(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.middle = ResidualBlock(widths[-1], embedding)
        self.grow = nn.ModuleList(conv(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(ResidualBlock(w, embedding) for w in widths)
        self.exit: nn.Module = nn.Identity()
        if outputs:
            self.exit = nn.Sequential(
                ChannelNorm(widths[0]), nn.SiLU(), zero_conv(widths[0], outputs)
            )

    def forward(
        self, x: Tensor, embedding: Tensor, injected: Sequence[Tensor] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Output ``(batch, outputs, height, width)``, float32, and the features of every level.

        Parameters
        ----------
        x
            ``(batch, inputs, height, width)``, sides multiples of ``2 ** (levels - 1)``.
        embedding
            ``(batch, embedding)``.
        injected
            Maps of `Injection`, or none.

        Returns
        -------
        tuple
            The features run from fine to coarse, ``(batch, width, height / 2**level, ...)``.
        """
        levels = len(self.down)
        into_down, into_up = injected[:levels], injected[levels:]
        skips, features = [], []
        h = self.entry(x)
        for level, block in enumerate(self.down):
            h = block(h + into_down[level] if into_down else h, embedding)
            skips.append(h)
            if level + 1 < levels:
                h = self.shrink[level](h)
        h = self.middle(h, embedding)
        for level in reversed(range(levels)):
            if level + 1 < levels:
                h = self.grow[level](F.interpolate(h, scale_factor=2.0)) + skips[level]
            h = self.up[level](h + into_up[level] if into_up else h, embedding)
            features.append(h)
        return self.exit(h).float(), features[::-1]


class Injection(nn.Module):
    """tau_2: one projection per level, added to the denoiser's features on the way down and up.

    The paper says that tau_2 injects at multiple levels and not how; this is our choice.

    Parameters
    ----------
    given, wanted
        Widths of tau_1 and of the denoiser, per level.
    """

    def __init__(self, given: Sequence[int], wanted: Sequence[int]) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Sequential(ChannelNorm(a), conv(a, b, 1))
            for a, b in 2 * list(zip(given, wanted, strict=True))
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps to inject, down then up, of tau_1's ``features``, which run from fine to coarse."""
        return [layer(x) for layer, x in zip(self.project, (*features, *features), strict=True)]
