"""A U-Net of the size of DMCVR's, untrained. It exists to be timed and for nothing else.

DMCVR (He et al., MICCAI 2023) renders slices with a diffusion autoencoder (Preechakul et al.,
CVPR 2022) on pixels. Here are the layers of that paper's denoiser for 256 x 256 pixels:
128 base channels, multiples 1, 1, 2, 2, 4, 4, two residual blocks a level, attention at
16 x 16, group normalisation scaled and shifted by the time and scaled by the semantic code.
Its speed does not depend on its weights. What is trained and compared in the tables of
quality is `calid.baselines.diffusion_autoencoder`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.layers import conv, fourier_features

__all__ = ["MULTIPLES", "PixelUNet"]

MULTIPLES = (1, 1, 2, 2, 4, 4)
CODE = 512


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


class _Block(nn.Module):
    """Residual block that can change channels, and the size by a factor of two first."""

    def __init__(self, inputs: int, outputs: int, code: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.norm1, self.conv1 = _norm(inputs), conv(inputs, outputs)
        self.norm2, self.conv2 = _norm(outputs), conv(outputs, outputs)
        self.time = nn.Linear(code, 2 * outputs)
        self.semantic = nn.Linear(code, outputs)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor, code: Tensor) -> Tensor:
        """Shape ``(batch, outputs, scale * height, scale * width)``."""
        h = self.conv1(self._resize(F.silu(self.norm1(x))))
        gain, shift = self.time(F.silu(time))[..., None, None].chunk(2, 1)
        h = self.norm2(h) * (1 + gain) + shift
        h = h * (1 + self.semantic(F.silu(code))[..., None, None])
        out: Tensor = self.skip(self._resize(x)) + self.conv2(F.silu(h))
        return out

    def _resize(self, x: Tensor) -> Tensor:
        if self.scale < 1:
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0) if self.scale > 1 else x


class _Attention(nn.Module):
    """Every pixel looks at every other one; one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.enter = _norm(channels), conv(channels, 3 * channels, 1)
        self.leave = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, channels, height, width)``, unchanged."""
        query, key, value = self.enter(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, 2)
        seen = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = x + self.leave(seen.transpose(1, 2).unflatten(2, x.shape[2:]))
        return out


class PixelUNet(nn.Module):
    """Images and noise level to noise.

    Parameters
    ----------
    base
        Channels at full resolution.
    multiples
        Of the base, per level, each half as large as the one before.
    attend
        Level with attention: the fifth of 256 pixels has 16.
    """

    def __init__(
        self, base: int = 128, multiples: Sequence[int] = MULTIPLES, attend: int = 4
    ) -> None:
        super().__init__()
        widths = [base * m for m in multiples]
        self.time = nn.Sequential(nn.Linear(32, CODE), nn.SiLU(), nn.Linear(CODE, CODE))
        self.entry = conv(1, base)
        down: list[nn.Module] = []
        kept, now = [base], base
        for level, width in enumerate(widths):
            for _ in range(2):
                down.append(_Step(now, width, level == attend))
                now = width
                kept.append(now)
            if level + 1 < len(widths):
                down.append(_Step(now, now, False, 0.5))
                kept.append(now)
        self.down = nn.ModuleList(down)
        self.middle = nn.ModuleList([_Step(now, now, True), _Step(now, now, False)])
        up: list[nn.Module] = []
        for level, width in reversed(list(enumerate(widths))):
            for number in range(3):
                up.append(_Step(now + kept.pop(), width, level == attend))
                now = width
                if number == 2 and level:
                    up.append(_Step(now, now, False, 2.0))
        self.up = nn.ModuleList(up)
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
        for step in self.down:
            h = step(h, time, code)
            kept.append(h)
        for step in self.middle:
            h = step(h, time, code)
        for step in self.up:
            h = step(h if step.grows else torch.cat([h, kept.pop()], 1), time, code)
        out: Tensor = self.exit(h).float()
        return out


class _Step(nn.Module):
    """A residual block and, where wanted, attention."""

    def __init__(self, inputs: int, outputs: int, attend: bool, scale: float = 1.0) -> None:
        super().__init__()
        self.grows = scale > 1
        self.block = _Block(inputs, outputs, CODE, scale)
        self.attention = _Attention(outputs) if attend else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, code: Tensor) -> Tensor:
        """Shape ``(batch, outputs, scale * height, scale * width)``."""
        out: Tensor = self.attention(self.block(x, time, code))
        return out
