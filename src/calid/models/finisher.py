"""The last word on a generated slice: a network that sees its picture and the slices around it.

Registration and the conditional mean each know where walls are, from different evidence: one
from pixels, the other from what training hearts looked like. The finisher compares the two at
full resolution. It moves the registered slices a little further, weighs them against each other
pixel by pixel, and corrects the mean.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.geometry.region import Region
from calid.models.layers import ChannelNorm, ResidualBlock, conv, fourier_features, zero_conv
from calid.models.motion import enlarge
from calid.models.store import load_network
from calid.models.surroundings import Neighbours, Surroundings, everywhere, seen_from

__all__ = ["KIND", "Finisher", "FinisherConfig", "load_finisher"]

KIND = "finisher"

CELL = 4
"""Pixels on a side that are one in the network: no convolution runs at full resolution."""

SHOWN = 7
"""Images: the two slices as moved, as acquired, the next two, and the decoded mean."""

FEATURES, PERIOD = 16, 160.0
"""Of each distance, and the longest wavelength in mm."""


@dataclass(frozen=True)
class FinisherConfig:
    """Sizes of the finisher.

    Parameters
    ----------
    widths
        Channels at a quarter of the resolution and at every halving from there.
    depth
        Residual blocks at each level on the way down.
    rise
        The same on the way up, where the coarsest level has none.
    embedding
        Size of what says how far the slices are.
    """

    widths: tuple[int, ...] = (72, 128, 176)
    depth: tuple[int, ...] = (2, 2, 3)
    rise: tuple[int, ...] = (2, 1)
    embedding: int = 96


class Finisher(nn.Module):
    """A U-Net on the pictures around a target; before training it changes nothing.

    Everything that it does fades with the gate of `Surroundings`: an acquired slice stays.
    """

    def __init__(self, config: FinisherConfig) -> None:
        super().__init__()
        self.config = config
        widths, size = config.widths, config.embedding
        self.entry = conv(SHOWN * CELL**2, widths[0])
        self.place = nn.Sequential(
            nn.Linear(4 * FEATURES + 2, size), nn.SiLU(), nn.Linear(size, size), nn.SiLU()
        )
        self.down = nn.ModuleList(
            _Stage(w, n, size) for w, n in zip(widths, config.depth, strict=True)
        )
        self.shrink = nn.ModuleList(conv(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.grow = nn.ModuleList(conv(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(
            _Stage(w, n, size) for w, n in zip(widths, config.rise, strict=False)
        )
        self.exit = nn.Sequential(ChannelNorm(widths[0]), nn.SiLU())
        self.fields = zero_conv(widths[0], 6)
        self.correction = zero_conv(widths[0], CELL**2)

    def forward(self, shown: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """What to do with the pictures around each target.

        Parameters
        ----------
        shown
            ``(targets, 7, height, width)``, window units, sides multiples of 16.
        place
            Distances and presence of the slices, ``(targets, 66)``.

        Returns
        -------
        tuple
            At a quarter of the resolution, ``(targets, 6, height / 4, width / 4)``:
            displacements of both slices (x, y) in pixels of this grid, the log-odds of the
            first, and the weight of the registered slices in the mean; and at full resolution
            what to add to the mean, ``(targets, 1, height, width)``.
        """
        embedding = self.place(place)
        h, skips = self.entry(F.pixel_unshuffle(2 * shown - 1, CELL)), []
        for level, stage in enumerate(self.down):
            h = stage(h, embedding)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        for level in reversed(range(len(self.up))):
            h = skips[level] + self.grow[level](F.interpolate(h, scale_factor=2.0))
            h = self.up[level](h, embedding)
        h = self.exit(h)
        return self.fields(h).float(), F.pixel_shuffle(self.correction(h), CELL).float()

    def finish(self, decoded: Tensor, around: Surroundings) -> tuple[Tensor, Surroundings]:
        """The conditional mean as images, and what the slices around say, seen more exactly.

        Parameters
        ----------
        decoded
            The mean's latents, decoded, of the region: ``(targets, 1, height, width)``.
        around
            What registration found.

        Returns
        -------
        tuple
            Images ``(targets, 1, height, width)``, as `calid.models.surroundings.expected`
            gives them before training, and the surroundings with slices moved and shared anew.
        """
        near, gate, region = around.neighbours, around.gate, around.region
        pictures = torch.cat([around.moved, near.nearest, near.beyond], 1)
        shown = torch.cat([pictures if region is None else region.cut(pictures), decoded], 1)
        fields, correction = self(shown.contiguous(memory_format=torch.channels_last), _place(near))
        motion = gate * enlarge(fields[:, :4], CELL)
        odds, weight = (
            gate * F.interpolate(f, scale_factor=float(CELL), mode="bilinear")
            for f in fields[:, 4:].split(1, 1)
        )
        motion, odds, weight = (_in_place(f, around) for f in (motion, odds, weight))
        displacement = near.displacement + motion.unflatten(1, (2, 2))
        share = around.share[:, :1] / around.share[:, 1:]
        first = torch.sigmoid(share.log() + odds)
        seen = replace(
            around,
            moved=seen_from(near.nearest, displacement, gate),
            share=torch.cat([first, 1 - first], 1),
            neighbours=replace(near, displacement=displacement),
        )
        mean, invented = everywhere(decoded, seen), gate.square()
        registered = 1 - invented + invented * weight
        mean = mean + registered * (seen.blended - mean) + gate * _in_place(correction, around)
        return mean, seen


class _Stage(nn.ModuleList):
    """Residual blocks at one resolution."""

    def __init__(self, width: int, depth: int, embedding: int) -> None:
        super().__init__(ResidualBlock(width, embedding) for _ in range(depth))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Shape unchanged."""
        for block in self:
            h = block(h, embedding)
        return h


def _place(near: Neighbours) -> Tensor:
    """How far the slices are, as features ``(targets, 66)``."""
    far = fourier_features(near.distance, FEATURES, PERIOD).flatten(1)
    return torch.cat([far, near.present.to(far)], 1)


def _in_place(part: Tensor, around: Surroundings) -> Tensor:
    """Maps of the region in the whole grid; nothing outside of it."""
    region: Region | None = around.region
    if region is None:
        return part
    return region.place(part, part.new_zeros(*part.shape[:2], *region.grid))


def load_finisher(path: Path) -> Finisher:
    """Read a finisher, in evaluation mode, on the CPU."""
    return load_network(path, KIND, lambda **c: Finisher(FinisherConfig(**c)))
