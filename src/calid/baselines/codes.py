"""The encoder of a diffusion autoencoder's semantic code."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.layers import ChannelNorm, ResidualBlock, conv

__all__ = ["CodeEncoder"]


class CodeEncoder(nn.Module):
    """One vector for a map of any size: strided residual blocks, then the mean over space.

    Being a mean over the field of view, it means the same only on the field it is trained on.
    """

    def __init__(self, inputs: int, widths: Sequence[int], size: int) -> None:
        super().__init__()
        steps = itertools.pairwise(widths)
        self.entry = nn.Sequential(conv(inputs, widths[0]), ResidualBlock(widths[0]))
        self.levels = nn.Sequential(
            *(nn.Sequential(conv(a, b, stride=2), ResidualBlock(b)) for a, b in steps)
        )
        self.norm = ChannelNorm(widths[-1])
        self.exit = nn.Linear(widths[-1], size)

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``(batch, size)`` of maps ``(batch, inputs, height, width)``."""
        pooled = F.silu(self.norm(self.levels(self.entry(x)))).mean((2, 3))
        code: Tensor = self.exit(pooled).float()
        return code
