"""The U-Net that the learned baselines share: conditioned by one vector, on nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.layers import ChannelNorm, ResidualBlock, conv, zero_conv

__all__ = ["ModulatedUNet"]


class ModulatedUNet(nn.Module):
    """Maps to maps, every residual block scaled and shifted by an embedding; zero at the start.

    The widths, blocks and resolutions of `calid.models.denoiser.Denoiser`, without tau_2.

    Parameters
    ----------
    inputs, outputs
        Channels.
    widths
        Channels per level, from full latent resolution down by factors of two.
    embedding
        Size of the vector.
    """

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], embedding: int) -> None:
        super().__init__()
        self.entry = conv(inputs, widths[0])
        self.down = nn.ModuleList(ResidualBlock(w, embedding) for w in widths)
        self.shrink = nn.ModuleList(conv(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.middle = ResidualBlock(widths[-1], embedding)
        self.grow = nn.ModuleList(conv(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(ResidualBlock(w, embedding) for w in widths)
        self.exit = nn.Sequential(ChannelNorm(widths[0]), nn.SiLU(), zero_conv(widths[0], outputs))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Shape ``(batch, outputs, height, width)``.

        Parameters
        ----------
        x
            ``(batch, inputs, height, width)``, sides multiples of ``2 ** (levels - 1)``.
        embedding
            ``(batch, embedding)``.
        """
        skips = []
        h = self.entry(x)
        for level, block in enumerate(self.down):
            h = block(h, embedding)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        h = self.middle(h, embedding)
        for level in reversed(range(len(self.up))):
            if level < len(self.grow):
                h = self.grow[level](F.interpolate(h, scale_factor=2.0)) + skips[level]
            h = self.up[level](h, embedding)
        out: Tensor = self.exit(h).float()
        return out
