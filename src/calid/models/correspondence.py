"""tau_1 of the default preset: bring the context into correspondence with the target.

For every context slice the network estimates where each point of the target lies in it, from
coarse to fine, and carries the slice's features and latent there. Three things hold by
construction, before any training:

* a displacement is proportional to the distance between target and slice, and slices are
  blended by inverse squared distance: at an acquired position the answer is that slice;
* the context is a set: any number of slices, in any order, some of them masked;
* with nothing learned the answer is a distance-weighted blend of the latents.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.layers import ChannelNorm, ResidualBlock, conv, fourier_features, zero_conv

__all__ = ["Aligned", "Context", "Correspondence", "SliceEncoder"]

GAP_UNIT = 10.0
"""Millimetres: displacements are predicted per this distance."""


@dataclass(frozen=True)
class Context:
    """Which encoded slices each target sees, and from how far.

    Parameters
    ----------
    index
        Shape ``(targets, context)``, into the encoded slices.
    distance
        Shape ``(targets, context)``, signed mm from target to slice.
    mask
        Shape ``(targets, context)``, true where there is a slice.
    """

    index: Tensor
    distance: Tensor
    mask: Tensor

    @classmethod
    def concatenate(cls, parts: Sequence[Context]) -> Context:
        """One context of all targets of several, in order."""
        return cls(
            torch.cat([p.index for p in parts]),
            torch.cat([p.distance for p in parts]),
            torch.cat([p.mask for p in parts]),
        )

    def to(self, device: torch.device) -> Context:
        """The same context on another device."""
        return Context(self.index.to(device), self.distance.to(device), self.mask.to(device))

    @property
    def gate(self) -> Tensor:
        """Shape ``(targets,)``; 0 on a context slice, towards 1 in the middle of a wide gap.

        Twice the harmonic mean of the distances to the nearest slices, saturating at 5 mm: it
        scales everything that is invented, corrections and noise alike.
        """
        distance = self.distance.abs().masked_fill(~self.mask, 1e4)
        below = distance.masked_fill(self.distance > 0, 1e4).amin(1)
        above = distance.masked_fill(self.distance <= 0, 1e4).amin(1)
        harmonic = 2 * below * above / (below + above)
        return harmonic / torch.sqrt(harmonic.square() + 25.0)


@dataclass(frozen=True)
class Aligned:
    """What tau_1 knows about the targets.

    Parameters
    ----------
    mean
        Estimate of the conditional mean of the latent, ``(targets, channels, h, w)``.
    pyramid
        Maps for tau_2, from fine to coarse.
    displacement
        Where each pixel of the target lies in each context slice, ``(targets, context, 2, h,
        w)``, latent pixels (x, y) relative to the target's.
    share
        How much of each slice is taken there, ``(targets, context, 1, h, w)``, sums to 1.
    """

    mean: Tensor
    pyramid: list[Tensor]
    displacement: Tensor
    share: Tensor

    def carry(self, images: Tensor, context: Context) -> Tensor:
        """The acquired images themselves, moved and blended as the latents were.

        Parameters
        ----------
        images
            Of the context's slices, ``(slices, 1, height, width)``; height and width are a
            multiple of the latent's.

        Returns
        -------
        Tensor
            ``(targets, 1, height, width)``.
        """
        targets, count = context.index.shape
        scale = images.shape[-1] // self.share.shape[-1]

        def enlarge(maps: Tensor) -> Tensor:
            flat = maps.flatten(0, 1).float()
            return F.interpolate(flat, scale_factor=float(scale), mode="bilinear")

        moved = _warp(images[context.index.flatten()], scale * enlarge(self.displacement))
        blended = (enlarge(self.share) * moved).view(targets, count, *moved.shape[1:])
        return blended.sum(1)


class SliceEncoder(nn.Module):
    """Features of one slice at every level; computed once per acquired slice."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.entry = conv(channels, widths[0])
        self.blocks = nn.ModuleList(ResidualBlock(w) for w in widths)
        self.shrink = nn.ModuleList(conv(a, b, stride=2) for a, b in itertools.pairwise(widths))

    def forward(self, latents: Tensor) -> list[Tensor]:
        """Maps from fine to coarse for latents ``(slices, channels, height, width)``."""
        pyramid = [self.blocks[0](self.entry(latents))]
        for shrink, block in zip(self.shrink, self.blocks[1:], strict=True):
            pyramid.append(block(shrink(pyramid[-1])))
        return pyramid


class _Level(nn.Module):
    """One resolution: gather the warped context, update the target's state, refine the flow."""

    def __init__(self, width: int, coarser: int, embedding: int) -> None:
        super().__init__()
        # Everything that exists once per context slice is half as wide as the state.
        half = width // 2
        self.project = nn.Sequential(ChannelNorm(width), conv(width, half, 1))
        self.lift = conv(coarser, width, 1) if coarser else None
        self.state = conv(width, half, 1) if coarser else None
        self.place = nn.Linear(embedding, half)
        self.score = conv(half, 1, 1)
        self.merge = conv(2 * half, width, 1)
        self.blocks = nn.ModuleList(ResidualBlock(width, embedding) for _ in range(2))
        self.recall = conv(width, half, 1)
        self.motion = zero_conv(half, 2)

    def forward(
        self,
        features: Tensor,
        context: Context,
        displacement: Tensor,
        state: Tensor | None,
        place: Tensor,
        embedding: Tensor,
        prior: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """New state ``(targets, width, h, w)`` and displacement ``(targets, context, 2, h, w)``."""
        targets, count = context.index.shape
        projected = self.project(features)[context.index.flatten()]
        warped = _warp(projected, displacement.flatten(0, 1))
        below = self.place(place).flatten(0, 1)[..., None, None]
        carried = None
        if state is not None and self.lift is not None and self.state is not None:
            carried = F.interpolate(self.lift(state), scale_factor=2.0)
            below = below + self.state(carried).repeat_interleave(count, 0)
        message = F.silu(warped + below)
        score = self.score(message).view(targets, count, 1, *message.shape[-2:])
        share = torch.softmax(score.float() + prior[..., None, None, None], 1).to(message.dtype)
        message = message.view(targets, count, *message.shape[1:])
        mean = (share * message).sum(1)
        # Where the slices disagree is what diffusion has to decide.
        spread = (share * (message - mean[:, None]).square()).sum(1)
        h = self.merge(torch.cat([mean, spread], 1))
        h = h if carried is None else h + carried
        for block in self.blocks:
            h = block(h, embedding)
        query = F.silu(warped + self.recall(h).repeat_interleave(count, 0))
        motion = self.motion(query).float().view(targets, count, 2, *h.shape[-2:])
        reach = (context.distance / GAP_UNIT)[..., None, None, None]
        return h, displacement + reach * motion


class Correspondence(nn.Module):
    """tau_1: align, blend, correct.

    Parameters
    ----------
    channels
        Of the latent.
    widths
        Channels per level, from fine to coarse.
    embedding
        Size of the distance embedding.
    """

    def __init__(self, channels: int, widths: Sequence[int], embedding: int = 128) -> None:
        super().__init__()
        self.encode = SliceEncoder(channels, widths)
        self.place = nn.Sequential(
            nn.Linear(33, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        coarser = [*widths[1:], 0]
        self.levels = nn.ModuleList(
            _Level(w, c, embedding) for w, c in zip(widths, coarser, strict=True)
        )
        self.recall, self.blend = conv(channels, widths[0] // 2, 1), zero_conv(widths[0] // 2, 1)
        self.state = conv(widths[0], widths[0] // 2, 1)
        self.correct = nn.Sequential(
            ChannelNorm(widths[0]), nn.SiLU(), zero_conv(widths[0], channels)
        )

    def forward(self, latents: Tensor, pyramid: Sequence[Tensor], context: Context) -> Aligned:
        """Align the context of every target.

        Parameters
        ----------
        latents
            Unit-variance latents of the slices, ``(slices, channels, height, width)``.
        pyramid
            ``self.encode(latents)``.
        context
            Of the targets.
        """
        targets, count = context.index.shape
        distance, mask = context.distance, context.mask
        place = torch.cat([fourier_features(distance, 32, period=160.0), mask[..., None]], -1)
        place = F.silu(self.place(place)) * mask[..., None]
        embedding = place.sum(1) / mask.sum(1, keepdim=True)
        prior = -2 * distance.abs().clamp(min=1e-3).log()
        prior = prior.masked_fill(~mask, -1e4)

        state: Tensor | None = None
        maps: list[Tensor] = []
        height, width = pyramid[-1].shape[-2:]
        displacement = distance.new_zeros(targets, count, 2, height, width)
        for level in reversed(range(len(pyramid))):
            if state is not None:
                displacement = _enlarge(displacement)
            state, displacement = self.levels[level](
                pyramid[level], context, displacement, state, place, embedding, prior
            )
            maps.insert(0, state)
        assert state is not None

        warped = _warp(latents[context.index.flatten()], displacement.flatten(0, 1))
        query = self.recall(warped) + self.state(state).repeat_interleave(count, 0)
        score = self.blend(F.silu(query)).float().view(targets, count, 1, *latents.shape[-2:])
        share = torch.softmax(score + prior[..., None, None, None], 1)
        blended = (share * warped.view(targets, count, *latents.shape[1:])).sum(1)
        correction = self.correct(state).float() * context.gate[:, None, None, None]
        return Aligned(blended + correction, maps, displacement, share)


def _warp(x: Tensor, displacement: Tensor) -> Tensor:
    """Sample ``x`` at each pixel plus its displacement ``(batch, 2, h, w)``, in pixels (x, y)."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device, dtype=torch.float32)
    columns = torch.arange(width, device=x.device, dtype=torch.float32)
    grid = torch.stack(
        [
            (2 * (columns + displacement[:, 0]) + 1) / width - 1,
            (2 * (rows[:, None] + displacement[:, 1]) + 1) / height - 1,
        ],
        -1,
    )
    return F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)


def _enlarge(displacement: Tensor) -> Tensor:
    """The same displacement field at twice the resolution."""
    flat = F.interpolate(displacement.flatten(0, 1), scale_factor=2.0, mode="bilinear")
    return 2 * flat.view(*displacement.shape[:2], *flat.shape[1:])
