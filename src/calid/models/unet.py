"""The U-Net of the method: tau_1, the denoiser and the transport are three instances."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.layers import ChannelNorm, ResidualBlock, conv, zero_conv
from calid.models.motion import ONE_FRAME, Frames

__all__ = ["FrameMixing", "Injection", "UNet"]


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
    mixing
        Widths in time of `FrameMixing` after every block on the way down and up; none for a U-Net
        that sees each frame of a film by itself.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        embedding: int,
        mixing: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.entry = conv(inputs, widths[0])
        self.down = nn.ModuleList(ResidualBlock(w, embedding) for w in widths)
        self.shrink = nn.ModuleList(conv(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.middle = ResidualBlock(widths[-1], embedding)
        self.grow = nn.ModuleList(conv(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(ResidualBlock(w, embedding) for w in widths)
        self.mix_down, self.mix_up = (
            nn.ModuleList(FrameMixing(w, mixing) if mixing else NoMixing() for w in widths)
            for _ in range(2)
        )
        self.exit: nn.Module = nn.Identity()
        if outputs:
            self.exit = nn.Sequential(
                ChannelNorm(widths[0]), nn.SiLU(), zero_conv(widths[0], outputs)
            )

    def forward(
        self,
        x: Tensor,
        embedding: Tensor,
        injected: Sequence[Tensor] = (),
        frames: Frames = ONE_FRAME,
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
        frames
            Of the film; the batch has all targets of frame 0, then those of frame 1, and so on.

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
            h = self.mix_down[level](h, frames)
            skips.append(h)
            if level + 1 < levels:
                h = self.shrink[level](h)
        h = self.middle(h, embedding)
        for level in reversed(range(levels)):
            if level + 1 < levels:
                h = self.grow[level](F.interpolate(h, scale_factor=2.0)) + skips[level]
            h = self.up[level](h + into_up[level] if into_up else h, embedding)
            h = self.mix_up[level](h, frames)
            features.append(h)
        return self.exit(h).float(), features[::-1]


class FrameMixing(nn.Module):
    """What the other frames of a film show: ``h + W [(N_s - I) silu(norm(h))]`` over widths ``s``.

    ``N_s`` is a Gaussian mean over the frames (`Frames.nearness`). Its width is a share of the
    film, so one network serves films of any number of frames, periodic or not. A frame that
    has no others, or others that are equal, stays as it is. ``W`` is 0 before training.

    Parameters
    ----------
    channels
        Of input and output.
    widths
        Standard deviations in time, as a share of the film.
    """

    def __init__(self, channels: int, widths: Sequence[float]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.norm = ChannelNorm(channels)
        self.weigh = nn.Conv2d(len(widths) * channels, channels, 1, bias=False)
        nn.init.zeros_(self.weigh.weight)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """``(frames * targets, channels, height, width)`` to the same shape."""
        if frames.count == 1:
            return x
        h = F.silu(self.norm(x))
        flat = h.permute(0, 2, 3, 1).reshape(frames.count, -1)
        others = []
        for width in self.widths:
            near = frames.nearness(width) - torch.eye(frames.count)
            mixed = near.to(flat) @ flat
            others.append(mixed.view(h.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2))
        out: Tensor = x + self.weigh(torch.cat(others, 1))
        return out


class NoMixing(nn.Module):
    """The identity, in a U-Net that mixes no frames."""

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Unchanged."""
        return x


class Injection(nn.Module):
    """tau_2: two projections per level, added to the denoiser's maps on the way down and up.

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
