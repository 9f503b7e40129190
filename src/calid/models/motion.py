"""How anatomy moves through-plane, estimated from the two nearest slices without learning.

tau_1 sees the slices after this motion. A network needs hours of training to find how slices 20 mm
apart correspond; least squares finds most of it in a few steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from calid.runtime import exact

__all__ = [
    "GAP_UNIT",
    "ONE_FRAME",
    "Frames",
    "box_means",
    "closing_step",
    "enlarge",
    "partly_moved",
    "refined_motion",
    "register",
    "through_plane_motion",
    "warp",
]

GAP_UNIT = 10.0
"""Millimetres: motion is counted per this distance."""

LEVELS, ITERATIONS, RADIUS = 3, 3, 5
FINE_RADIUS = 7
"""Half the side of a window at full resolution, where it spans fewer millimetres."""
DAMPING = 0.1
"""Share of the mean gradient energy that is added to every window, where little is certain."""
BEAT = 0.1
"""Standard deviation of a window in time, as a share of the film."""
CLOSING = 1.4
"""Largest `closing_step` of a film of a whole heartbeat; chosen by ``benchmarks/whole_beat.py``."""


@dataclass(frozen=True)
class Frames:
    """The frames of a film, evenly spaced in time.

    Parameters
    ----------
    count
        How many there are.
    periodic
        Whether they are one whole heartbeat: then the first follows the last.
    """

    count: int = 1
    periodic: bool = True

    @classmethod
    def of(cls, images: NDArray[np.generic]) -> Frames:
        """The frames of a film ``(frames, slices, height, width)``, as its images show them.

        A film that ends before the heartbeat does jumps from its last frame to its first.
        """
        return cls(len(images), closing_step(images) <= CLOSING)

    def nearness(self, width: float) -> Tensor:
        """How much every frame counts for every other, ``(count, count)``; rows sum to 1.

        Parameters
        ----------
        width
            Standard deviation of a Gaussian in time, as a share of the film.
        """
        place = torch.arange(self.count)
        apart = (place[None] - place[:, None]).abs()
        if self.periodic:
            apart = torch.minimum(apart, self.count - apart)
        weights = torch.exp(-0.5 * (apart / self.count / width).square())
        return weights / weights.sum(1, keepdim=True)

    def mean(self, x: Tensor, width: float) -> Tensor:
        """``N_s x``: every frame's mean over those near in time, weighted by `nearness`.

        Parameters
        ----------
        x
            ``(frames * targets, ...)``, frame-major; one frame is its own mean.
        width
            As in `nearness`.
        """
        if self.count == 1:
            return x
        near = self.nearness(width).to(x)
        means: Tensor = torch.tensordot(near, x.unflatten(0, (self.count, -1)), 1)
        return means.flatten(0, 1)


ONE_FRAME = Frames()
"""A single frame."""


def closing_step(images: NDArray[np.generic]) -> float:
    """How far the last frame is from the first, in units of the largest other step of a film.

    A step is the root mean square difference of a frame and the next one in the middle quarter of
    the images; 1 for a single frame.

    Parameters
    ----------
    images
        ``(frames, slices, height, width)``.
    """
    middle = (slice(size // 4, size - size // 4) for size in images.shape[2:])
    heart = images[:, :, *middle]
    steps = [
        float(np.square(after.astype(np.float32) - before).mean())
        for before, after in zip(heart, np.roll(heart, -1, axis=0), strict=True)
    ]
    *others, closing = np.sqrt(steps)
    return float(closing / max(others)) if max(others, default=0) > 0 else 1.0


def warp(x: Tensor, displacement: Tensor) -> Tensor:
    """Sample ``x`` at each pixel plus its displacement, bilinearly; the border extends outward.

    Parameters
    ----------
    x
        Shape ``(batch, channels, height, width)``.
    displacement
        Shape ``(batch, 2, height, width)``, pixels (x, y).
    """
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


def enlarge(displacement: Tensor, scale: int) -> Tensor:
    """The same displacement ``(batch, 2, h, w)`` on a grid ``scale`` times as fine."""
    return scale * F.interpolate(displacement, scale_factor=float(scale), mode="bilinear")


def warped_to_target(slices: Tensor, motion: Tensor, distance: Tensor) -> Tensor:
    """Warp slices to a target, given the motion of the anatomy through the gap.

    Parameters
    ----------
    slices
        Shape ``(targets, slices, height, width)``.
    motion
        Pixels (x, y) per `GAP_UNIT`, ``(targets, 2, height, width)``.
    distance
        Signed mm from target to slice, ``(targets, slices)``.
    """
    reach = (distance / GAP_UNIT)[..., None, None, None]
    moved = warp(slices.flatten(0, 1)[:, None], (reach * motion[:, None]).flatten(0, 1))
    return moved.view_as(slices)


@torch.no_grad()
def register(pair: Tensor, distance: Tensor, gate: Tensor, frames: Frames = ONE_FRAME) -> Tensor:
    """Register the slices below and above to a target between them.

    In a narrow gap, unwarped slices are blended in: thick slices overlap then, and the mean of two
    estimates has a smaller error than either. In a wide gap that would show two anatomies at once.

    Parameters
    ----------
    pair
        Images ``(targets, 2, height, width)`` in window units; sides are multiples of 8.
    distance
        Signed mm from target to slice, ``(targets, 2)``.
    gate
        ``(targets, 1, 1, 1)``; 0 on an acquired slice, towards 1 in a wide gap.
    frames
        Of the film; targets are frame-major, all of frame 0 first.

    Returns
    -------
    Tensor
        Shape of ``pair``.
    """
    below, above = pair.split(1, 1)
    reach = distance[:, 0], distance[:, 1]
    motion = through_plane_motion(below, above, *reach, frames)
    motion = refined_motion(below, above, motion, *reach, frames)
    return partly_moved(pair, motion, distance, gate)


def partly_moved(pair: Tensor, motion: Tensor, distance: Tensor, gate: Tensor) -> Tensor:
    """`register` with a given motion."""
    stay = (1 - gate.square()).square()
    return stay * pair + (1 - stay) * warped_to_target(pair, motion, distance)


@torch.no_grad()
def through_plane_motion(
    below: Tensor, above: Tensor, to_below: Tensor, to_above: Tensor, frames: Frames = ONE_FRAME
) -> Tensor:
    """Motion at a target between two slices, such that both agree when warped to it.

    Coarse to fine, iterative Lucas-Kanade (Lucas and Kanade, 1981; the total flow is solved
    for in every window, as Le Besnerais and Champagnat, ICIP 2005), on both slices at once: the
    unknown is seen from the target, so that it is right at any position in the gap. In a film,
    windows extend over neighbouring frames as well: the correspondence of two slices changes slowly
    in time, and noise changes it less when frames are averaged.

    Parameters
    ----------
    below, above
        Images ``(targets, 1, height, width)`` in window units; sides are multiples of 8.
    to_below, to_above
        Signed distance in mm from target to slice, shape ``(targets,)``.
    frames
        Of the film; targets are frame-major, all of frame 0 first.

    Returns
    -------
    Tensor
        ``u``, ``(targets, 2, height / 2, width / 2)``, in pixels (x, y) of this grid:
        ``target(p) = slice(p + d / GAP_UNIT * u)`` for the slice at distance ``d``.
    """
    pyramid = [F.avg_pool2d(_seen(below, above), 2)]
    for _ in range(LEVELS - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    motion = pyramid[-1].new_zeros(len(below), 2, *pyramid[-1].shape[-2:])
    for level, pair in enumerate(reversed(pyramid)):
        motion = motion if level == 0 else enlarge(motion, 2)
        motion = _refine(pair, motion, to_below, to_above, frames, RADIUS)
    return motion


@torch.no_grad()
def refined_motion(
    below: Tensor,
    above: Tensor,
    motion: Tensor,
    to_below: Tensor,
    to_above: Tensor,
    frames: Frames = ONE_FRAME,
) -> Tensor:
    """What `through_plane_motion` found, refined at the images' own resolution.

    Small structures and small hearts move in ways that half the resolution does not see.

    Parameters
    ----------
    below, above, to_below, to_above, frames
        As there.
    motion
        From there.

    Returns
    -------
    Tensor
        ``(targets, 2, height, width)``, pixels of the images.
    """
    pair = _seen(below, above)
    return _refine(pair, enlarge(motion, 2), to_below, to_above, frames, FINE_RADIUS)


def _seen(below: Tensor, above: Tensor) -> Tensor:
    """Both slices as the estimate looks at them, ``(targets, 2, height, width)``."""
    # The square root lifts myocardium and lung against the bright blood pool.
    return torch.cat([below, above], 1).float().clamp(min=0).sqrt()


def _refine(
    pair: Tensor, motion: Tensor, to_below: Tensor, to_above: Tensor, frames: Frames, radius: int
) -> Tensor:
    """A few linearisations, and the least-squares solution per window of each."""
    low, high = ((d / GAP_UNIT)[:, None, None, None].float() for d in (to_below, to_above))
    for _ in range(ITERATIONS):
        first, second = warp(pair[:, :1], low * motion), warp(pair[:, 1:], high * motion)
        # d/du of second(x + high u) - first(x + low u)
        gx, gy = (high * s - low * f for s, f in zip(_slopes(second), _slopes(first), strict=True))
        rest = second - first - gx * motion[:, :1] - gy * motion[:, 1:]
        products = torch.cat([gx * gx, gx * gy, gy * gy, gx * rest, gy * rest], 1)
        xx, xy, yy, xr, yr = _window_means(products, frames, radius).unbind(1)
        damping = DAMPING * (xx + yy).mean((1, 2), keepdim=True) + 1e-8
        xx, yy = xx + damping, yy + damping
        determinant = xx * yy - xy * xy
        motion = torch.stack([xy * yr - yy * xr, xy * xr - xx * yr], 1) / determinant[:, None]
    return motion


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along columns and rows."""
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (p[..., 1:-1, 2:] - p[..., 1:-1, :-2]) / 2, (p[..., 2:, 1:-1] - p[..., :-2, 1:-1]) / 2


def _window_means(x: Tensor, frames: Frames, radius: int) -> Tensor:
    """Means over squares, and over frames that are near in time."""
    means = box_means(x, radius)
    # Not in bfloat16: the systems that are solved with it amplify rounding.
    with exact(means.device):
        return frames.mean(means, BEAT)


def box_means(images: Tensor, radius: int) -> Tensor:
    """Means over squares of side ``2 * radius + 1``, of what lies inside of the image.

    Two small matrices: on a few hundred pixels several times faster than pooling with a stride
    of one, and as exact.

    Parameters
    ----------
    images
        Shape ``(..., height, width)``.
    radius
        Pixels.

    Returns
    -------
    Tensor
        float32, same shape.
    """

    def matrix(size: int) -> Tensor:
        place = torch.arange(size, device=images.device)
        inside = ((place[:, None] - place).abs() <= radius).float()
        return inside / inside.sum(1, keepdim=True)

    # Not in bfloat16: the systems that are solved with it amplify rounding.
    with exact(images.device):
        return matrix(images.shape[-2]) @ images.float() @ matrix(images.shape[-1]).T
