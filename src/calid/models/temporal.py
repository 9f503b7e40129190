"""Mixing over the frames of a film, which is periodic: the last frame is followed by the first.

Layers like these are put between those of a network that knows single frames, and alone learn
from films (Blattmann et al., "Align your Latents", CVPR 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from calid.models.layers import ChannelNorm

__all__ = ["STILL", "Frames", "TemporalAttention", "temporal_layers"]

HARMONICS = 4
"""Of the heart rate, which attention knows a frame's place in the cycle by."""

FOCUS, LEAN = 4.0, 1.0
"""Before training: concentration of the heads' von Mises windows, and radians by which the
first looks back and the last ahead."""


@dataclass(frozen=True)
class Frames:
    """Consecutive frames of one heartbeat, evenly spaced in time.

    Parameters
    ----------
    count
        How many there are.
    cycle
        How many the whole heartbeat has: where the two are equal, the last is followed by the
        first.
    """

    count: int = 1
    cycle: int = 1

    def nearness(self, width: float) -> Tensor:
        """How much every frame counts for every other, ``(count, count)``; rows sum to 1.

        Parameters
        ----------
        width
            Standard deviation of a Gaussian in time, as a share of the cycle.
        """
        place = torch.arange(self.count)
        ahead = (place[None] - place[:, None]) % self.cycle
        apart = torch.minimum(ahead, self.cycle - ahead) / self.cycle
        weights = torch.exp(-0.5 * (apart / width).square())
        return weights / weights.sum(1, keepdim=True)


STILL = Frames()
"""A single frame: nothing to mix."""


class TemporalAttention(nn.Module):
    """Attention over the frames of a film, at each pixel of a feature map on its own.

    What it adds is made of differences between frames alone: a film that stands still passes
    as it is, and so does a single frame. Before training it is the identity. How far apart two
    frames are counts as a share of the cycle, so that any number of frames will do and rolled
    frames give the rolled answer.

    Parameters
    ----------
    channels
        Of the maps. Attention works on half of them.
    heads
        Of the attention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, channels // (2 * heads)
        inner = self.heads * self.size
        self.norm = ChannelNorm(channels)
        self.project = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.exit = nn.Conv2d(inner, channels, 1, bias=False)
        nn.init.zeros_(self.exit.weight)
        # Not computed by torch: on its meta device that imports a compiler, which takes seconds.
        lean = np.linspace(-LEAN, LEAN, heads) if heads > 1 else np.zeros(1)
        window = np.zeros((heads, 2, HARMONICS), np.float32)
        window[:, 0, 0], window[:, 1, 0] = FOCUS * np.cos(lean), FOCUS * np.sin(lean)
        self.window = nn.Parameter(torch.tensor(window))

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Shape ``(frames * targets, channels, height, width)``, frame by frame; unchanged."""
        if frames.count == 1:
            return x
        found = self.project(self.norm(x)).permute(0, 2, 3, 1)
        height, width = x.shape[-2:]
        found = found.reshape(frames.count, -1, height, width, 3, self.heads, self.size)
        # One sequence over the frames for every pixel and head.
        query, key, value = found.permute(4, 1, 2, 3, 5, 0, 6).contiguous().unbind(0)
        score = query @ key.transpose(-1, -2) / math.sqrt(self.size)
        share = torch.softmax(score.float() + self._bias(frames), -1).to(value.dtype)
        mixed = (share @ value - value).permute(4, 0, 1, 2, 3, 5)
        mixed = mixed.reshape(-1, height, width, self.heads * self.size)
        added: Tensor = self.exit(mixed.permute(0, 3, 1, 2))
        return x + added

    def _bias(self, frames: Frames) -> Tensor:
        """Log weight of every frame as each head sees it from every other, ``(heads, n, n)``."""
        place = torch.arange(frames.count, device=self.window.device)
        # Looked up by whole numbers: rolled frames have the same weights to the last bit.
        apart = (place[None] - place[:, None]) % frames.cycle
        harmonic = torch.arange(1, HARMONICS + 1, device=place.device)
        step = torch.arange(frames.cycle, device=place.device)
        angle = 2 * math.pi / frames.cycle * (step[:, None] * harmonic % frames.cycle)
        waves = torch.stack([angle.cos(), angle.sin()], 1)
        weight = (self.window[:, None].float() * waves).sum((2, 3))
        return weight[:, apart]


def temporal_layers(widths: Sequence[int], heads: int) -> nn.ModuleList:
    """A layer for each level; none at all for 0 heads."""
    return nn.ModuleList(TemporalAttention(width, heads) for width in widths if heads)
