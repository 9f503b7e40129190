"""What the acquired pixels say about a target, beside its latent.

A conditional mean is blurred wherever the neighbours leave a choice: walls turn to fog, and a
segmentation loses them. The acquired slices, registered to the target, still have walls and
grain. `texture` hands that on, the more of it the more both neighbours show the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from calid.geometry.region import Region
from calid.models.context import Acquired, Context, Registered
from calid.models.filters import gaussian_means
from calid.models.motion import GAP_UNIT, refined_motion, warp

__all__ = [
    "Neighbours",
    "Surroundings",
    "everywhere",
    "expected",
    "grain",
    "rendered",
    "sampled",
    "seen_from",
    "surroundings",
    "texture",
]

SHARE, DETAIL = 0.9, 1.2
"""How much of the registered slices, and of their agreeing detail, is handed on in a wide gap."""

TOLERANCE = 0.3
"""Window units by which the registered slices differ where half of the share is left."""

VIVID = 1.25
"""Amplitude of fine detail, in units of what the acquired slices have, that is not exceeded.

These four were chosen on held-out slices: crisp as a registration, and nearer to the truth
than one in PSNR, SSIM, Dice and Hausdorff distance at once.
"""

CRISP, DRAWN = 0.95, 0.83
"""Of a sample: amplitude of its fine detail, in the same units, and how much of what the sampler
draws beyond the mean is shown.

Chosen on held-out slices too: crisp as a real slice, the truth within the samples' 90 % interval
at four pixels of five, and no less of a heart to a segmentation than linear interpolation.
"""

FINE, LOCAL = 1.5, 3.0
"""Pixels: detail is what a Gaussian of the first takes away, agreement is within the second."""

NOISE = 1e-5
"""Energy of detail, in squared window units, below which agreement means nothing."""


@dataclass(frozen=True)
class Neighbours:
    """The slices on either side of each target, as they were acquired.

    Parameters
    ----------
    nearest, beyond
        The nearest one below and above, and the next ones, 0 where there are none: ``(targets,
        2, height, width)``, window units.
    displacement
        Where each pixel of the target lies in the nearest ones, pixels (x, y), as far as the
        motion between them says: ``(targets, 2, 2, height, width)``.
    distance
        Signed mm from the target to the nearest two and to the next two, ``(targets, 4)``.
    present
        Whether there is a next one, ``(targets, 2)``.
    """

    nearest: Tensor
    beyond: Tensor
    displacement: Tensor
    distance: Tensor
    present: Tensor


@dataclass(frozen=True)
class Surroundings:
    """The acquired pixels around each target, on the networks' grid.

    Parameters
    ----------
    moved
        The nearest slice below and above as they look at the target, ``(targets, 2, height,
        width)``; see `seen_from`.
    share
        How much either counts, ``(targets, 2, 1, 1)`` or a number for each pixel; sums to 1.
    gate
        Shape ``(targets, 1, 1, 1)``; how far each target is from being a copy: 0 on an
        acquired slice, towards 1 in the middle of a wide gap.
    neighbours
        What they were before they were moved.
    region
        Where the networks look; none for everywhere.
    """

    moved: Tensor
    share: Tensor
    gate: Tensor
    neighbours: Neighbours
    region: Region | None = None

    @property
    def blended(self) -> Tensor:
        """Both slices in one image ``(targets, 1, height, width)``."""
        return (self.share * self.moved).sum(1, keepdim=True)


def surroundings(acquired: Acquired, seen: Registered) -> Surroundings:
    """The nearest slices, registered to each target at full resolution.

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
    displacement = (distance / GAP_UNIT)[..., None, None, None] * motion[:, None]
    gate = context.gate[:, None, None, None]
    moved = seen_from(still, displacement, gate)
    reach = distance.abs()
    share = (reach.flip(1) / reach.sum(1, keepdim=True))[..., None, None]
    beyond, apart, present = _beyond(acquired, seen)
    neighbours = Neighbours(still, beyond, displacement, torch.cat([distance, apart], 1), present)
    return Surroundings(moved, share, gate, neighbours, acquired.region)


def seen_from(slices: Tensor, displacement: Tensor, gate: Tensor) -> Tensor:
    """The nearest slices as they look at a target.

    In a narrow gap they also stay where they are, in part: thick slices overlap then, what both
    show in one place is likely there between them, and the mean of two guesses errs less than
    either. In a wide gap that would be a ghost.

    Parameters
    ----------
    slices, displacement
        As `Neighbours`.
    gate
        As `Surroundings`.
    """
    stay = (1 - gate.square()).square()
    moved = warp(slices.flatten(0, 1)[:, None], displacement.flatten(0, 1)).view_as(slices)
    return stay * slices + (1 - stay) * moved


def _beyond(acquired: Acquired, seen: Registered) -> tuple[Tensor, Tensor, Tensor]:
    """The slices next to the nearest two, their distances, and whether there are any."""
    whole, still = seen.context, ~seen.moved
    context = Context(whole.index[:, still], whole.distance[:, still], whole.mask[:, still])
    below, above = context.nearest()
    columns, last = torch.cat([below - 1, above + 1], 1), context.index.shape[1] - 1
    inside = (columns >= 0) & (columns <= last)
    columns = columns.clamp(0, last)
    present = inside & context.mask.gather(1, columns)
    distance = context.distance.gather(1, columns) * present
    images = acquired.images[context.index.gather(1, columns), 0]
    return images * present[..., None, None], distance, present


def everywhere(decoded: Tensor, around: Surroundings) -> Tensor:
    """What was decoded, with the registered slices around it where it is of a region only.

    Parameters
    ----------
    decoded
        Of the region: ``(targets, 1, height, width)``.
    """
    return decoded if around.region is None else around.region.place(decoded, around.blended)


def expected(decoded: Tensor, around: Surroundings) -> Tensor:
    """The conditional mean as images ``(targets, 1, height, width)``.

    Near an acquired slice registered pixels know more than any decoder; they fade out as there
    is more to invent.

    Parameters
    ----------
    decoded
        Its latents, decoded, as `everywhere` takes them.
    """
    weight = around.gate.square()
    return weight * everywhere(decoded, around) + (1 - weight) * around.blended


def rendered(mean: Tensor, around: Surroundings, vividness: float) -> Tensor:
    """The conditional mean with texture, as images ``(targets, 1, height, width)``.

    Parameters
    ----------
    mean
        Of `expected`, ``(targets, 1, height, width)``.
    vividness
        How much of the texture is added; 0 leaves the conditional mean.
    """
    return mean + vividness * texture(mean, around)


def sampled(mean: Tensor, chosen: Tensor, around: Surroundings, vividness: float) -> Tensor:
    """A sample as images ``(targets, 1, height, width)``.

    What is known is drawn with the acquired pixels in view; what the sampler chose beyond it is
    added as the difference that it makes, which fades in the latents towards acquired slices.

    Parameters
    ----------
    mean
        As `rendered`.
    chosen
        The sample less the mean, both decoded, ``(targets, 1, height, width)``.
    vividness
        How much of the grain is added.
    """
    return mean + vividness * grain(around) + DRAWN * chosen


def texture(mean: Tensor, around: Surroundings) -> Tensor:
    """What to add to the mean so that it looks like the slices around it.

    Parameters
    ----------
    mean
        Of `expected`, ``(targets, 1, height, width)``.

    Returns
    -------
    Tensor
        Same shape: a part of the way to the registered neighbours, blended by distance, less
        where the two differ, and their detail as far as they agree on it, but no more of it than
        makes the answer as detailed as they are. Nothing on an acquired slice.
    """
    detail = _detail(around)
    difference = gaussian_means((around.moved[:, :1] - around.moved[:, 1:]).square(), FINE)
    share = SHARE / (1 + difference / TOLERANCE**2)
    below, above = detail.slices.split(1, 1)
    common = gaussian_means(below * above, LOCAL)
    agreement = 2 * common / (detail.energy.sum(1, keepdim=True) + NOISE)
    room = VIVID * detail.crispness - share
    more = torch.minimum(DETAIL * agreement.clamp(0, 1), room.clamp(min=0))
    result: Tensor = around.gate * (share * (around.blended - mean) + more * detail.blended)
    return result


def grain(around: Surroundings) -> Tensor:
    """What makes a sample as crisp as an acquired slice, ``(targets, 1, height, width)``.

    The detail of the registered neighbours whether they agree on it or not, less what the mean
    has of it already. A sample may show what only could be. Nothing on an acquired slice.
    """
    detail = _detail(around)
    present = 1 - around.gate.square()
    return (CRISP * detail.crispness - present).clamp(min=0) * detail.blended


class _Detail(NamedTuple):
    """Fine detail of the registered slices.

    Of both ``(targets, 2, height, width)`` with its local energy, of their blend ``(targets, 1,
    height, width)``, and the amplitude of one slice's over the blend's.
    """

    slices: Tensor
    energy: Tensor
    blended: Tensor
    crispness: Tensor


def _detail(around: Surroundings) -> _Detail:
    slices = around.moved - gaussian_means(around.moved, FINE)
    energy = gaussian_means(slices.square(), LOCAL)
    blended = (around.share * slices).sum(1, keepdim=True)
    # Blending two slices that disagree takes detail away, which leaves room for more.
    present = (around.share * energy).sum(1, keepdim=True) + NOISE
    crispness = (present / (gaussian_means(blended.square(), LOCAL) + NOISE)).sqrt()
    return _Detail(slices, energy, blended, crispness)
