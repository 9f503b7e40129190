"""tau_1 of the default preset: bring the context into correspondence with the target.

Its context holds the slices and, of the nearest two, copies that were already moved to the
target. For every member the network estimates where each point of the target lies in it, from
coarse to fine, beginning with the motion that `register` found, and carries the member's
features and latent there. Three things hold by construction, before any training:

* a displacement is proportional to the distance between target and slice, and slices are
  blended by inverse squared distance: at an acquired position the answer is that slice;
* the context is a set: any number of slices, in any order, some of them masked;
* with nothing learned the answer is a distance-weighted blend of registered latents.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.models.context import Context, Registered
from calid.models.layers import ChannelNorm, ResidualBlock, conv, fourier_features, zero_conv
from calid.models.motion import GAP_UNIT, enlarge, warp
from calid.models.temporal import temporal_layers

__all__ = ["Aligned", "Correspondence", "SliceEncoder", "carry"]


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
        Where each pixel of the target lies in each member of the context, ``(targets, context,
        2, h, w)``, latent pixels (x, y) relative to the target's.
    share
        How much of each member is taken there, ``(targets, context, 1, h, w)``, sums to 1.
    """

    mean: Tensor
    pyramid: list[Tensor]
    displacement: Tensor
    share: Tensor


class SliceEncoder(nn.Module):
    """Features of one slice at every level; computed once for all targets of a call."""

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

    def __init__(self, width: int, coarser: int, embedding: int, heads: int) -> None:
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
        self.mix = temporal_layers([width], heads)
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
        warped = warp(projected, displacement.flatten(0, 1))
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
        for mix in self.mix:
            h = mix(h, context.frames)
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
    temporal
        Heads of the layers that mix over the frames of a film; 0 for none.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], embedding: int = 128, temporal: int = 0
    ) -> None:
        super().__init__()
        self.encode = SliceEncoder(channels, widths)
        self.place = nn.Sequential(
            nn.Linear(34, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        coarser = [*widths[1:], 0]
        self.levels = nn.ModuleList(
            _Level(w, c, embedding, temporal) for w, c in zip(widths, coarser, strict=True)
        )
        self.recall, self.blend = conv(channels, widths[0] // 2, 1), zero_conv(widths[0] // 2, 1)
        self.state = conv(widths[0], widths[0] // 2, 1)
        self.origin = nn.Linear(embedding, widths[0] // 2)
        self.correct = nn.Sequential(
            ChannelNorm(widths[0]), nn.SiLU(), zero_conv(widths[0], channels)
        )

    def forward(self, seen: Registered) -> Aligned:
        """Align the context of every target."""
        context, latents = seen.context, seen.latents
        targets, count = context.index.shape
        mask = context.mask
        place, prior = self._places(seen)
        embedding = place.sum(1) / mask.sum(1, keepdim=True)

        pyramid = self.encode(latents)
        guess = _halvings(seen.displacement, len(pyramid))
        learned = torch.zeros_like(guess[-1])
        state: Tensor | None = None
        maps: list[Tensor] = []
        for level in reversed(range(len(pyramid))):
            if state is not None:
                learned = enlarge(learned.flatten(0, 1), 2).view_as(guess[level])
            state, displacement = self.levels[level](
                pyramid[level], context, guess[level] + learned, state, place, embedding, prior
            )
            learned = displacement - guess[level]
            maps.insert(0, state)
        assert state is not None

        warped = warp(latents[context.index.flatten()], displacement.flatten(0, 1))
        query = self.recall(warped) + self.state(state).repeat_interleave(count, 0)
        query = query + self.origin(place).flatten(0, 1)[..., None, None]
        score = self.blend(F.silu(query)).float().view(targets, count, 1, *latents.shape[-2:])
        share = torch.softmax(score + prior[..., None, None, None], 1)
        blended = (share * warped.view(targets, count, *latents.shape[1:])).sum(1)
        correction = self.correct(state).float() * context.gate[:, None, None, None]
        return Aligned(blended + correction, maps, displacement, share)

    def _places(self, seen: Registered) -> tuple[Tensor, Tensor]:
        """Embedding ``(targets, context, embedding)`` and log share before any learning."""
        distance, mask = seen.context.distance, seen.context.mask
        flags = torch.stack([mask, seen.moved.expand_as(mask)], -1)
        place = torch.cat([fourier_features(distance, 32, period=160.0), flags], -1)
        prior = -2 * distance.abs().clamp(min=1e-3).log()
        return F.silu(self.place(place)) * mask[..., None], prior.masked_fill(~mask, -1e4)


def _halvings(displacement: Tensor, levels: int) -> list[Tensor]:
    """A displacement ``(targets, context, 2, h, w)`` on grids from fine to coarse."""
    pyramid = [displacement]
    for _ in range(levels - 1):
        flat = F.avg_pool2d(pyramid[-1].flatten(0, 1), 2) / 2
        pyramid.append(flat.view(*displacement.shape[:3], *flat.shape[-2:]))
    return pyramid


def carry(seen: Registered, aligned: Aligned) -> Tensor:
    """The images ``(targets, 1, height, width)``, moved and blended as the latents were."""
    targets, count = seen.context.index.shape
    scale = seen.images.shape[-1] // aligned.share.shape[-1]
    fine = enlarge(aligned.displacement.flatten(0, 1).float(), scale)
    share = aligned.share.flatten(0, 1).float()
    weight = F.interpolate(share, scale_factor=float(scale), mode="bilinear")
    moved = weight * warp(seen.images[seen.context.index.flatten()], fine)
    return moved.view(targets, count, *moved.shape[1:]).sum(1)
