"""A box of the interpolator's grid around the heart: networks work inside of it only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calid.geometry.pixels import TILE, PixelGrid

__all__ = ["Region"]

BORDER, FADE = 4, 12
"""Pixels from a side of the box: what networks make of a border is not shown in the first, and
what they make fades in over the second."""


@dataclass(frozen=True)
class Region:
    """A box of `PixelGrid`, padding included.

    Parameters
    ----------
    rows, columns
        First pixel and the one behind the last, a multiple of `TILE` apart.
    grid
        Height and width of the whole grid.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    grid: tuple[int, int]

    @classmethod
    def around(cls, mask: NDArray[np.bool_], margin: int) -> Region | None:
        """The smallest box with a margin about what is true; none if nothing is.

        Parameters
        ----------
        mask
            Shape ``(height, width)`` of the grid.
        margin
            Pixels on every side, as far as the grid goes; beside it the answer fades out over
            `FADE`, which stays clear of what is true.
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
        sides = (last - first for first, last in (self.rows, self.columns))
        return float(np.prod(list(sides)) / np.prod(self.grid))

    def cut(self, whole: Tensor) -> Tensor:
        """The box of maps ``(..., height, width)`` of the grid."""
        return whole[..., slice(*self.rows), slice(*self.columns)]

    def place(self, part: Tensor, whole: Tensor) -> Tensor:
        """Maps ``whole`` with the box filled by ``part``, which fades out towards its sides.

        A side at the end of the grid is none: there ``part`` stays as it is.
        """
        rows, columns = (
            _ramp(span, size, part) for span, size in zip(self._spans, self.grid, strict=True)
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
            self._spans, (top, left), grid.shape, grid.size, strict=True
        ):
            edges = np.rint((np.array([first, last]) - before) * given / size)
            low, high = np.clip(edges, 0, given).astype(int).tolist()
            spans.append((low, high))
        return spans[0], spans[1]

    @property
    def _spans(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return self.rows, self.columns


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
