"""What the acquired pixels say about a target, beside its latent.

A conditional mean is blurred wherever the neighbours leave a choice: walls turn to fog, and a
segmentation loses them. The acquired slices, registered to the target, still have walls and
grain. `texture` hands that on, most of it where both neighbours show the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from calid.geometry.region import Region
from calid.models.context import Acquired, Registered
from calid.models.motion import carried, refined_motion

__all__ = ["Surroundings", "expected", "rendered", "surroundings", "texture"]

SHARE, DETAIL = 0.8, 1.1
"""How much of the registered slices, and of their agreeing detail, is handed on in a wide gap."""

VIVID = 1.2
"""Amplitude of fine detail, in units of what the acquired slices have, that is not exceeded.

These three were chosen on held-out slices: crisp as a registration, and nearer to the truth
than one in PSNR, SSIM, Dice and Hausdorff distance at once.
"""

FINE, LOCAL = 1.5, 3.0
"""Pixels: detail is what a Gaussian of the first takes away, agreement is within the second."""

NOISE = 1e-5
"""Energy of detail, in squared window units, below which agreement means nothing."""


@dataclass(frozen=True)
class Surroundings:
    """The acquired pixels around each target, on the networks' grid.

    Parameters
    ----------
    moved
        The nearest slice below and above as they look at the target, ``(targets, 2, height,
        width)``; see `surroundings`.
    distance
        Signed mm from the target to both, ``(targets, 2)``.
    gate
        Shape ``(targets, 1, 1, 1)``; how far each target is from being a copy: 0 on an
        acquired slice, towards 1 in the middle of a wide gap.
    region
        Where the networks look; none for everywhere.
    """

    moved: Tensor
    distance: Tensor
    gate: Tensor
    region: Region | None = None

    @property
    def share(self) -> Tensor:
        """How much either slice counts by its distance, ``(targets, 2, 1, 1)``; sums to 1."""
        reach = self.distance.abs()
        return (reach.flip(1) / reach.sum(1, keepdim=True))[..., None, None]

    @property
    def blended(self) -> Tensor:
        """Both slices in one image ``(targets, 1, height, width)``."""
        return (self.share * self.moved).sum(1, keepdim=True)


def surroundings(acquired: Acquired, seen: Registered) -> Surroundings:
    """The nearest slices, registered to each target at full resolution.

    In a narrow gap they also stay where they are, in part: thick slices overlap then, what both
    show in one place is likely there between them, and the mean of two guesses errs less than
    either. In a wide gap that would be a ghost.

    Parameters
    ----------
    acquired
        The slices.
    seen
        What `register` made of them.
    """
    context, frames = seen.context, seen.context.frames
    distance = context.distance[:, seen.moved]
    still = acquired.images[seen.nearest, 0]
    below, above = still.split(1, 1)
    motion = refined_motion(below, above, seen.motion, distance[:, 0], distance[:, 1], frames)
    gate = context.gate[:, None, None, None]
    share = (1 - gate.square()).square()
    both = share * still + (1 - share) * carried(still, motion, distance)
    return Surroundings(both, distance, gate, acquired.region)


def rendered(drawn: Tensor, mean: Tensor, around: Surroundings, vividness: float) -> Tensor:
    """The answer as images ``(targets, 1, height, width)``.

    What is known is drawn with the acquired pixels in view; what the sampler chose beyond it is
    added as the difference that it makes.

    Parameters
    ----------
    drawn, mean
        A sample and the conditional mean, decoded: of the region, ``(targets, 1, height,
        width)``. Outside of it both are the registered slices, blended.
    vividness
        How much of the texture is added; 0 leaves the conditional mean.
    """
    if around.region is not None:
        drawn, mean = (around.region.place(x, around.blended) for x in (drawn, mean))
    image = expected(mean, around)
    return image + vividness * texture(image, around) + around.gate * (drawn - mean)


def expected(decoded: Tensor, around: Surroundings) -> Tensor:
    """The conditional mean as images ``(targets, 1, height, width)``.

    Near an acquired slice registered pixels know more than any decoder; they fade out as there
    is more to invent.
    """
    weight = around.gate.square()
    return weight * decoded + (1 - weight) * around.blended


def texture(mean: Tensor, around: Surroundings) -> Tensor:
    """What to add to the mean so that it looks like the slices around it.

    Parameters
    ----------
    mean
        Of `expected`, ``(targets, 1, height, width)``.

    Returns
    -------
    Tensor
        Same shape: a part of the way to the registered neighbours, blended by distance, and
        their detail as far as the two agree on it, but no more of it than makes the answer as
        detailed as they are. Nothing on an acquired slice.
    """
    fine = around.moved - smooth(around.moved, FINE)
    detail = (around.share * fine).sum(1, keepdim=True)
    energy = smooth(fine.square(), LOCAL)
    below, above = fine.split(1, 1)
    agreement = 2 * smooth(below * above, LOCAL) / (energy.sum(1, keepdim=True) + NOISE)
    # Blending two slices that disagree takes detail away, which leaves room for more.
    present = (around.share * energy).sum(1, keepdim=True) + NOISE
    room = VIVID * (present / (smooth(detail.square(), LOCAL) + NOISE)).sqrt() - SHARE
    more = torch.minimum(DETAIL * agreement.clamp(0, 1), room.clamp(min=0))
    result: Tensor = around.gate * (SHARE * (around.blended - mean) + more * detail)
    return result


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of the last two axes, the border repeated.

    Parameters
    ----------
    images
        Shape ``(batch, channels, height, width)``.
    sigma
        Standard deviation in pixels; the kernel ends at three of them.
    """
    radius = round(3 * sigma)
    place = torch.arange(-radius, radius + 1, dtype=torch.float32, device=images.device)
    weights = torch.exp(-0.5 * (place / sigma).square())
    weights = (weights / weights.sum())[None, None]
    flat = images.float().flatten(0, 1)[:, None]
    rows = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), weights[..., None])
    both = F.conv2d(F.pad(rows, (radius, radius, 0, 0), mode="replicate"), weights[:, :, None])
    return both.view_as(images)
