"""A U-Net of the size of DMCVR's, untrained: it is only timed.

DMCVR (He et al., MICCAI 2023) renders slices with a diffusion autoencoder (Preechakul et al.,
CVPR 2022) on pixels. Here are the layers of that paper's denoiser for 256 x 256 pixels:
128 base channels, multiples 1, 1, 2, 2, 4, 4, two residual blocks a level, attention at
16 x 16, group normalisation scaled and shifted by the time and scaled by the semantic code.
Its speed does not depend on its weights. The tables of quality compare
`calid.baselines.learned.DiffusionAutoencoder` instead, which is trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.layers import conv, fourier_features

__all__ = ["CODE", "MULTIPLES", "PixelUNet"]

MULTIPLES = (1, 1, 2, 2, 4, 4)
CODE = 512


class PixelUNet(nn.Module):
    """Predict noise from images and a noise level.

    Parameters
    ----------
    base
        Channels at full resolution.
    multiples
        Channels per level, as multiples of ``base``. Each level halves the side of the images.
    attend
        Index of the level with attention, where 256 pixels have become 16.
    """

    def __init__(
        self, base: int = 128, multiples: Sequence[int] = MULTIPLES, attend: int = 4
    ) -> None:
        super().__init__()
        levels = list(enumerate(base * m for m in multiples))
        self.time = nn.Sequential(nn.Linear(32, CODE), nn.SiLU(), nn.Linear(CODE, CODE))
        self.entry = conv(1, base)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        kept, now = [base], base
        for level, width in levels:
            for _ in range(2):
                self.down.append(_Block(now, width, level == attend))
                now = width
                kept.append(now)
            if level + 1 < len(levels):
                self.down.append(_Block(now, now, scale=0.5))
                kept.append(now)
        self.middle = nn.ModuleList([_Block(now, now, attend=True), _Block(now, now)])
        for level, width in reversed(levels):
            for _ in range(3):
                self.up.append(_Block(now + kept.pop(), width, level == attend))
                now = width
            if level:
                self.up.append(_Block(now, now, scale=2.0))
        self.exit = nn.Sequential(_norm(base), nn.SiLU(), conv(base, 1))

    def forward(self, x: Tensor, t: Tensor, code: Tensor) -> Tensor:
        """Shape ``(batch, 1, height, width)``.

        Parameters
        ----------
        x
            Same shape; sides multiples of ``2 ** (levels - 1)``.
        t, code
            ``(batch,)`` and ``(batch, 512)``.
        """
        time = self.time(fourier_features(t, 32, period=2.0))
        h = self.entry(x)
        kept = [h]
        for block in self.down:
            h = block(h, time, code)
            kept.append(h)
        for block in self.middle:
            h = block(h, time, code)
        for block in self.up:
            h = block(h if block.grows else torch.cat([h, kept.pop()], 1), time, code)
        out: Tensor = self.exit(h).float()
        return out


class _Block(nn.Module):
    """Residual block that can change the size first, and attention where it is wanted."""

    def __init__(self, inputs: int, outputs: int, attend: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        self.scale, self.grows = scale, scale > 1
        self.norm1, self.conv1 = _norm(inputs), conv(inputs, outputs)
        self.norm2, self.conv2 = _norm(outputs), conv(outputs, outputs)
        self.time, self.semantic = nn.Linear(CODE, 2 * outputs), nn.Linear(CODE, outputs)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)
        self.attention = _Attention(outputs) if attend else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, code: Tensor) -> Tensor:
        h = self.conv1(self._resize(F.silu(self.norm1(x))))
        gain, shift = self.time(F.silu(time))[..., None, None].chunk(2, 1)
        h = self.norm2(h) * (1 + gain) + shift
        h = h * (1 + self.semantic(F.silu(code))[..., None, None])
        out: Tensor = self.attention(self.skip(self._resize(x)) + self.conv2(F.silu(h)))
        return out

    def _resize(self, x: Tensor) -> Tensor:
        if self.scale < 1:
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0) if self.grows else x


class _Attention(nn.Module):
    """Attention with one head; shapes stay as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.enter = _norm(channels), conv(channels, 3 * channels, 1)
        self.leave = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.enter(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, 2)
        seen = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = x + self.leave(seen.transpose(1, 2).unflatten(2, x.shape[2:]))
        return out


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)
