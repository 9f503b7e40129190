"""Building blocks that all networks share.

None of them looks at global statistics of the image, so a network gives the same answer on
a crop as on the full field of view, away from the border.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "ChannelNorm",
    "PixelNorm",
    "ResidualBlock",
    "channels_last",
    "conv",
    "fourier_features",
    "zero_conv",
]

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """The network with its weights laid out channels-last, which CPUs and GPUs prefer."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Convolution that keeps the size (up to its stride)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def zero_conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """Convolution that starts at zero, so that its branch starts as nothing."""
    layer = conv(inputs, outputs, kernel)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class PixelNorm(nn.Module):
    """Root-mean-square normalisation over channels, at each pixel on its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, channels, height, width)``, unchanged."""
        # One reduction without the map of squares, which took half of the time on a CPU.
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True).float()
        scale = torch.rsqrt(size.square() / x.shape[1] + 1e-6)
        # The gain follows the features' dtype: float32 would spread from here.
        return x * scale.to(x.dtype) * self.gain.to(x.dtype)


class ChannelNorm(nn.Module):
    """Layer normalisation over channels, at each pixel on its own.

    One fused kernel where maps are channels-last: four times cheaper than `PixelNorm` on a
    CPU. It forgets the mean over channels, which an autoencoder wants to keep.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, channels, height, width)``, unchanged."""
        last = x.permute(0, 2, 3, 1)
        gain = self.gain.to(x.dtype)
        return F.layer_norm(last, gain.shape, gain, None, 1e-6).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two convolutions around an optional modulation; the identity at the start.

    Parameters
    ----------
    channels
        Of input and output.
    embedding
        Size of a vector that scales and shifts the features between the convolutions
        (feature-wise modulation, Perez et al., 2018); 0 for none.
    norm
        Class of the normalisation before each convolution.
    """

    def __init__(
        self, channels: int, embedding: int = 0, norm: Callable[[int], nn.Module] = ChannelNorm
    ) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(channels), conv(channels, channels)
        self.norm2, self.conv2 = norm(channels), zero_conv(channels, channels)
        self.modulation = nn.Linear(embedding, 2 * channels) if embedding else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Shape ``(batch, channels, height, width)``, unchanged."""
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.modulation is not None:
            scale, shift = self.modulation(embedding)[..., None, None].chunk(2, 1)
            h = torch.addcmul(shift, h, 1 + scale)
        out: Tensor = x + self.conv2(F.silu(h))
        return out


def fourier_features(x: Tensor, size: int, period: float) -> Tensor:
    """Sines and cosines of a scalar at octave frequencies.

    Parameters
    ----------
    x
        Any shape.
    size
        Number of features, even.
    period
        Longest wavelength, in the unit of ``x``.

    Returns
    -------
    Tensor
        Shape ``(*x.shape, size)``.
    """
    frequencies = 2 * math.pi / period * 2.0 ** torch.arange(size // 2, device=x.device)
    phase = x[..., None] * frequencies
    return torch.cat([phase.sin(), phase.cos()], -1)
