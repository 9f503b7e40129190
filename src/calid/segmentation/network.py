"""A U-Net (Ronneberger et al., MICCAI 2015) from a short-axis slice to its labels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.layers import ChannelNorm, ResidualBlock, conv
from calid.models.store import load_network

__all__ = ["SegmentationConfig", "SegmentationNetwork", "load_segmentation"]

KIND = "segmentation"


@dataclass(frozen=True)
class SegmentationConfig:
    """Sizes of the network.

    Parameters
    ----------
    widths
        Channels at half resolution and at every halving from there.
    depth
        Residual blocks at each level on the way down; on the way up there is one.
    classes
        Labels, the background included.
    """

    widths: tuple[int, ...] = (40, 80, 128, 160)
    depth: tuple[int, ...] = (1, 1, 2, 2)
    classes: int = 4


class SegmentationNetwork(nn.Module):
    """Log-odds of every label at every pixel of 1.5 mm.

    The first and the last factor of two are pixel (un)shuffles, as in the autoencoder: no
    convolution runs at full resolution.
    """

    def __init__(self, config: SegmentationConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.entry = conv(4, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(w) for _ in range(d)))
            for w, d in zip(widths, config.depth, strict=True)
        )
        self.shrink = nn.ModuleList(conv(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.grow = nn.ModuleList(conv(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(ResidualBlock(w) for w in widths[:-1])
        self.exit = nn.Sequential(
            ChannelNorm(widths[0]), nn.SiLU(), conv(widths[0], 4 * config.classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(slices, classes, height, width)`` of images ``(slices, 1, height, width)``.

        Images are in window units; sides are multiples of 16.
        """
        h, skips = self.entry(F.pixel_unshuffle(2 * images - 1, 2)), []
        for level, block in enumerate(self.down):
            h = block(h)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        for level in reversed(range(len(self.up))):
            grown = self.grow[level](F.interpolate(h, scale_factor=2.0))
            h = self.up[level](grown + skips[level])
        return F.pixel_shuffle(self.exit(h), 2).float()


def load_segmentation(path: Path) -> SegmentationNetwork:
    """Read the network, in evaluation mode, on the CPU."""
    return load_network(path, KIND, lambda **c: SegmentationNetwork(SegmentationConfig(**c)))
