"""Which slices a target sees, and the same slices registered to where it lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from calid.geometry.region import Region
from calid.models.motion import GAP_UNIT, carried, enlarge, through_plane_motion
from calid.models.temporal import STILL, Frames

__all__ = ["Acquired", "Context", "Registered", "nearest_context", "register"]


@dataclass(frozen=True)
class Acquired:
    """The slices that a reconstruction starts from, on the networks' grid.

    Parameters
    ----------
    images
        Shape ``(slices, 1, height, width)``, window units.
    latents
        Shape ``(slices, channels, h, w)``, unit variance; of the region.
    encode
        The autoencoder's, from such images to such latents.
    frames
        Of the film whose slices these are, one frame after the other.
    region
        Where the networks look; none for everywhere. Motion and moved pixels are everywhere.
    """

    images: Tensor
    latents: Tensor
    encode: Callable[[Tensor], Tensor]
    frames: Frames = STILL
    region: Region | None = None

    @classmethod
    def of(
        cls, images: Tensor, encode: Callable[[Tensor], Tensor], frames: Frames = STILL
    ) -> Acquired:
        """Encode images."""
        return cls(images, encode(images), encode, frames)

    def cut(self, maps: Tensor) -> Tensor:
        """The region of maps ``(..., height, width)`` of the images' grid or a coarser one."""
        return maps if self.region is None else self.region.cut(maps)


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
    frames
        That the targets run over: all of the first frame, then the same ones of the next.
    """

    index: Tensor
    distance: Tensor
    mask: Tensor
    frames: Frames = STILL

    @classmethod
    def concatenate(cls, parts: Sequence[Context]) -> Context:
        """One context of all targets of several single frames, in order."""
        return cls(
            torch.cat([p.index for p in parts]),
            torch.cat([p.distance for p in parts]),
            torch.cat([p.mask for p in parts]),
        )

    def to(self, device: torch.device) -> Context:
        """The same context on another device."""
        index, distance, mask = (x.to(device) for x in (self.index, self.distance, self.mask))
        return Context(index, distance, mask, self.frames)

    def over(self, frames: Frames, slices: int) -> Context:
        """The targets of one frame in every frame of a film, with ``slices`` slices a frame."""
        first = slices * torch.arange(frames.count, device=self.index.device)
        return Context(
            (first[:, None, None] + self.index).flatten(0, 1),
            self.distance.repeat(frames.count, 1),
            self.mask.repeat(frames.count, 1),
            frames,
        )

    def nearest(self) -> tuple[Tensor, Tensor]:
        """Columns of the nearest slice below and above, each ``(targets, 1)``."""
        far = self.distance.abs().masked_fill(~self.mask, 1e4)
        below = far.masked_fill(self.distance > 0, 1e5).argmin(1, keepdim=True)
        above = far.masked_fill(self.distance <= 0, 1e5).argmin(1, keepdim=True)
        return below, above

    @property
    def gate(self) -> Tensor:
        """Shape ``(targets,)``; 0 on a context slice, towards 1 in the middle of a wide gap.

        The harmonic mean of the distances to the nearest slices, saturating at 5 mm: it
        scales everything that is invented, corrections and noise alike.
        """
        distance = self.distance.abs().masked_fill(~self.mask, 1e4)
        below = distance.masked_fill(self.distance > 0, 1e4).amin(1)
        above = distance.masked_fill(self.distance <= 0, 1e4).amin(1)
        harmonic = 2 * below * above / (below + above)
        return harmonic / torch.sqrt(harmonic.square() + 25.0)


@dataclass(frozen=True)
class Registered:
    """The context of `register`: its slices, then the nearest two as they look at the target.

    Parameters
    ----------
    images, latents
        As of `Acquired`; behind the slices stand those that were moved, two for every target.
    context
        Into both, with two more columns than before.
    moved
        Shape ``(context,)``, true for the columns of moved slices.
    displacement
        Where each pixel of the target lies in each member of the context, as far as the
        motion between the nearest two says: ``(targets, context, 2, h, w)``, latent pixels
        (x, y). Zero for moved slices.
    nearest
        Shape ``(targets, 2)``, into the slices: the nearest one below, and above.
    motion
        Through the gap, of `through_plane_motion`.
    """

    images: Tensor
    latents: Tensor
    context: Context
    moved: Tensor
    displacement: Tensor
    nearest: Tensor
    motion: Tensor


@torch.no_grad()
def register(acquired: Acquired, context: Context) -> Registered:
    """Move the nearest slices of every target to it, and encode what arrives.

    Moving the image and encoding it keeps detail that moving the latent would blur.
    """
    images, latents = acquired.images, acquired.latents
    columns = torch.cat(context.nearest(), 1)
    index, distance = context.index.gather(1, columns), context.distance.gather(1, columns)
    pair = images[index, 0]
    below, above = pair.split(1, 1)
    motion = through_plane_motion(below, above, distance[:, 0], distance[:, 1], context.frames)
    moved = carried(pair, enlarge(motion, 2), distance).flatten(0, 1)[:, None]
    targets, count = context.index.shape
    extra = len(images) + torch.arange(2 * targets, device=images.device).view(targets, 2)
    extended = Context(
        torch.cat([context.index, extra], 1),
        torch.cat([context.distance, distance], 1),
        torch.cat([context.mask, torch.ones_like(extra, dtype=torch.bool)], 1),
        context.frames,
    )
    seen = acquired.cut(motion)
    shrink = seen.shape[-1] // latents.shape[-1]
    coarse = F.avg_pool2d(seen, shrink) / shrink
    reach = (context.distance / GAP_UNIT)[..., None, None, None]
    still = coarse.new_zeros(targets, 2, *coarse.shape[1:])
    displacement = torch.cat([reach * coarse[:, None], still], 1)
    return Registered(
        torch.cat([images, moved]),
        torch.cat([latents, acquired.encode(acquired.cut(moved))]),
        extended,
        torch.arange(count + 2, device=images.device) >= count,
        displacement,
        index,
        motion,
    )


def nearest_context(
    positions: NDArray[np.float64], targets: NDArray[np.float64], per_side: int = 2
) -> Context:
    """The nearest slices on either side of every target; fewer at base and apex, masked.

    Parameters
    ----------
    positions
        Shape ``(slices,)``, mm, increasing.
    targets
        Shape ``(targets,)``, mm, each strictly between two positions.
    per_side
        Slices on either side.

    Returns
    -------
    Context
        With ``2 * per_side`` entries a target, from the lowest to the highest.

    Raises
    ------
    ValueError
        If a target is not between two slices.
    """
    upper = np.searchsorted(positions, targets)
    if np.any((targets <= positions[0]) | (targets >= positions[-1])):
        raise ValueError("a target lies outside the stack: interpolation has no answer there")
    index = upper[:, None] + np.arange(-per_side, per_side)
    mask = (index >= 0) & (index < len(positions))
    index = np.clip(index, 0, len(positions) - 1)
    distance = np.where(mask, positions[index] - targets[:, None], 0.0)
    return Context(
        torch.from_numpy(index), torch.from_numpy(distance).float(), torch.from_numpy(mask)
    )
