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
from calid.models.context import Acquired, Registered
from calid.models.filters import gaussian_means
from calid.models.motion import partly_moved, refined_motion

__all__ = [
    "Surroundings",
    "expected",
    "grain",
    "rendered",
    "sampled",
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

    In a narrow gap they stay where they are, in part, as `calid.models.motion.registered` has it.

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
    both = partly_moved(still, motion, distance, gate)
    return Surroundings(both, distance, gate, acquired.region)


def rendered(mean: Tensor, around: Surroundings, vividness: float) -> Tensor:
    """The conditional mean with texture, as images ``(targets, 1, height, width)``.

    Parameters
    ----------
    mean
        Decoded, of the region: ``(targets, 1, height, width)``. Outside of it stand the
        registered slices, blended.
    vividness
        How much of the texture is added; 0 leaves the conditional mean.
    """
    image = expected(_everywhere(mean, around), around)
    return image + vividness * texture(image, around)


def sampled(drawn: Tensor, mean: Tensor, around: Surroundings, vividness: float) -> Tensor:
    """A sample as images ``(targets, 1, height, width)``.

    What is known is drawn with the acquired pixels in view; what the sampler chose beyond it is
    added as the difference that it makes, which fades in the latents towards acquired slices.

    Parameters
    ----------
    drawn, mean
        The sample and the conditional mean, decoded, as `rendered`.
    vividness
        How much of the grain is added.
    """
    drawn, mean = (_everywhere(x, around) for x in (drawn, mean))
    return expected(mean, around) + vividness * grain(around) + DRAWN * (drawn - mean)


def _everywhere(decoded: Tensor, around: Surroundings) -> Tensor:
    """What was decoded, with the registered slices around it where it is of a region only."""
    return decoded if around.region is None else around.region.place(decoded, around.blended)


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
