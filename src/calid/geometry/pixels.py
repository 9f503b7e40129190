"""The in-plane grid of the interpolator, and the box of it in which the networks work.

The grid is the image's own pixels, or a whole fraction of them. Scanners interpolate: an image of
0.7 mm pixels was often measured at 1.4 mm and enlarged by filling its spectrum with zeros. Such an
image goes to the coarser grid by cutting its spectrum and comes back by filling it again, and
nothing is lost. An image whose pixels are not finer than `FINEST` is not resampled at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor

from calid.geometry.grid import TILE, tile_padding

__all__ = ["FINEST", "TILE", "PixelGrid", "Region", "gaussian_mean"]

FINEST = 1.0
"""Smallest pixel of the interpolator's grid in mm. Cine MR is measured at 1.1 to 2.0 mm."""

BORDER, FADE = 4, 12
"""Pixels from a side of a `Region`: those where the networks' answer is not shown, since they do
not see beyond the side, and the next ones, over which it fades in."""


@dataclass(frozen=True)
class PixelGrid:
    """Own pixels of an image and the grid on which the networks see it.

    Its ``size`` without padding is that of the image, or a whole fraction of it, rounded down.
    """

    shape: tuple[int, int]  # height and width of the image
    size: tuple[int, int]  # height and width of the grid
    spacing: tuple[float, float]  # pixel size of the grid in mm, by rows and by columns

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing: tuple[float, float]) -> PixelGrid:
        """Grid of images ``(..., height, width)`` with a ``(row, column)`` spacing in mm."""
        height, width = shape[-2:]
        # Rounding keeps a header that says 0.99999 from being halved.
        rows, columns = (math.ceil(round(FINEST / s, 3)) for s in spacing)
        size = max(1, height // max(1, rows)), max(1, width // max(1, columns))
        return cls(
            (height, width), size, (spacing[0] * (height / size[0]), spacing[1] * (width / size[1]))
        )

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Pixels that `enter` adds on the left, right, top and bottom."""
        return tile_padding(*self.size)

    def enter(self, images: Tensor) -> Tensor:
        """Images ``(slices, height, width)`` on the padded grid, where the edge is repeated."""
        return F.pad(self.coarsened(images)[:, None], self.padding, mode="replicate")[:, 0]

    def coarsened(self, images: Tensor) -> Tensor:
        """Images ``(..., height, width)`` on the grid without padding."""
        return _resized(images, self.size)

    def leave(self, images: Tensor) -> Tensor:
        """Images ``(slices, ...)`` of the padded grid in the image's own pixels.

        ``enter(leave(x))`` is ``x`` inside the padding. ``leave(enter(x))`` is ``x`` where the
        grid is the image's own, and where the image holds no more detail than the grid can.
        """
        left, _, top, _ = self.padding
        inside = images[:, top : top + self.size[0], left : left + self.size[1]]
        return _resized(inside, self.shape)


def _resized(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Cut or fill up the cosine spectrum of both axes; an axis of the wanted size stays as it is.

    The type II cosine transform continues an image as in a mirror, so that its edges do not ring
    as those of a Fourier transform do.
    """
    for axis, size in zip((-2, -1), shape, strict=True):
        given = images.shape[axis]
        if size == given:
            continue
        kept = min(size, given)
        there = dct(np.eye(given), axis=0, norm="ortho")[:kept]
        back = dct(np.eye(size), axis=0, norm="ortho")[:kept].T
        # Constants stay what they are.
        matrix = torch.from_numpy(math.sqrt(size / given) * back @ there).to(images)
        images = matrix @ images if axis == -2 else images @ matrix.T
    return images


@dataclass(frozen=True)
class Region:
    """A box of the interpolator's grid around the heart: networks work only inside it.

    Parameters
    ----------
    rows, columns
        First pixel and the one behind the last, a multiple of `TILE` apart. The grid's padding
        counts.
    grid
        Height and width of the whole grid.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    grid: tuple[int, int]

    @classmethod
    def around(cls, mask: NDArray[np.bool_], margin: int) -> Region | None:
        """The smallest box with a margin around the true pixels; None if there are none.

        Parameters
        ----------
        mask
            Shape ``(height, width)`` of the grid.
        margin
            Pixels on every side, within the grid, in which the answer comes from the networks
            only. It fades out over `FADE` beyond them.
        """
        if not mask.any():
            return None
        spans = []
        for axis, size in enumerate(mask.shape):
            there = np.flatnonzero(mask.any(axis=1 - axis))
            reach = margin + BORDER + FADE
            first = max(0, int(there[0]) - reach)
            side = -(-(int(there[-1]) + 1 + reach - first) // TILE) * TILE
            # Grids are multiples of TILE themselves: a box that sticks out is moved back in.
            first = max(0, min(first, size - side))
            spans.append((first, min(size, first + side)))
        return cls(spans[0], spans[1], (mask.shape[0], mask.shape[1]))

    @property
    def share(self) -> float:
        """Of the grid's area."""
        sides = [last - first for first, last in (self.rows, self.columns)]
        return float(np.prod(sides) / np.prod(self.grid))

    def cut(self, whole: Tensor) -> Tensor:
        """The box of maps ``(..., height, width)`` of the grid."""
        return whole[..., slice(*self.rows), slice(*self.columns)]

    def place(self, part: Tensor, whole: Tensor) -> Tensor:
        """Maps ``whole`` with the box filled by ``part``, which fades out towards its sides.

        It does not fade where a side of the box is a side of the grid.
        """
        rows, columns = (
            _ramp(span, size, part)
            for span, size in zip((self.rows, self.columns), self.grid, strict=True)
        )
        out = whole.clone()
        box = self.cut(out)
        box += rows[:, None] * columns * (part - box)
        return out

    def native(self, grid: PixelGrid) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of the image that the box covers, first and one behind the last."""
        left, _, top, _ = grid.padding
        spans = []
        for (first, last), before, given, size in zip(
            (self.rows, self.columns), (top, left), grid.shape, grid.size, strict=True
        ):
            edges = np.rint((np.array([first, last]) - before) * given / size)
            low, high = np.clip(edges, 0, given).astype(int).tolist()
            spans.append((low, high))
        return spans[0], spans[1]


def _ramp(span: tuple[int, int], size: int, like: Tensor) -> Tensor:
    """Weights along one side of the box: 0 at its ends, 1 inside."""
    first, last = span
    place = torch.arange(first, last, device=like.device, dtype=like.dtype)
    inside = torch.ones_like(place)
    for end, distance in ((first, place - first), (last, last - 1 - place)):
        if end not in (0, size):
            share = ((distance - BORDER) / FADE).clamp(0, 1)
            inside = inside * share.square() * (3 - 2 * share)
    return inside


def gaussian_mean(images: Tensor, sigma: float) -> Tensor:
    """Every pixel's weighted mean over those around it; a border pixel goes on beyond the border.

    Parameters
    ----------
    images
        ``(batch, height, width)``.
    sigma
        Standard deviation of the weights in pixels.
    """
    radius = math.ceil(3 * sigma)
    place = torch.arange(-radius, radius + 1).to(images)
    weights = torch.softmax(-0.5 * (place / sigma).square(), 0)
    padded = F.pad(images[:, None], [radius] * 4, mode="replicate")
    along_rows = F.conv2d(padded, weights[None, None, :, None])
    return F.conv2d(along_rows, weights[None, None, None, :])[:, 0]
