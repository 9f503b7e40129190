"""A box of the networks' grid: where the heart is, so that the chest does not cost what it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calid.geometry.grid import TILE, NetworkGrid

__all__ = ["Region"]

BORDER, FADE = 4, 12
"""Pixels from a side of the box: what networks make of a border is not shown in the first, and
what they make fades in over the second."""

STEP = 8
"""Pixels of the networks' grid that are one of the coarsest maps that are cut."""


@dataclass(frozen=True)
class Region:
    """A box of the networks' grid, padding included, that every network can halve.

    Parameters
    ----------
    rows, columns
        First pixel and the one behind the last: a multiple of `TILE` apart, and each of `STEP`.
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
            Shape ``(height, width)`` of the networks' grid.
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
            first = max(0, int(there[0]) - reach) // STEP * STEP
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
        """The box of maps ``(..., height, width)`` of the grid, or of a coarser one."""
        shrink = self.grid[0] // whole.shape[-2]
        rows, columns = (slice(a // shrink, b // shrink) for a, b in (self.rows, self.columns))
        return whole[..., rows, columns]

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

    def native(self, grid: NetworkGrid) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of the native image that the box covers, first and one behind last."""
        left, _, top, _ = grid.padding
        spans = []
        for (first, last), before, (size, spacing), (_, step) in zip(
            self._spans, (top, left), grid.native, grid.network, strict=True
        ):
            # Both grids share their centre to within half a pixel.
            edges = np.rint((np.array([first, last]) - before) * step / spacing)
            low, high = np.clip(edges, 0, size).astype(int).tolist()
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
