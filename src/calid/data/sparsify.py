"""Making a stack sparse: which slices to keep, which hidden one to reconstruct."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

__all__ = ["SparseTuple", "allowed_strides", "draw_tuple", "hide_alternate"]

GAPS = (6.0, 42.0)
"""Width in mm of the gaps that training opens."""

TYPICAL_GAP = 15.0
"""Gaps near this width, between a clinical gap and a benchmark's, are drawn most often."""


@dataclass(frozen=True)
class SparseTuple:
    """Indices into a stack: the slices that are kept, and one hidden between two of them."""

    kept: NDArray[np.int64]
    target: int


def hide_alternate(slices: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keep slices 0, 2, 4, ...; the hidden ones that lie between two kept ones."""
    kept = np.arange(0, slices, 2)
    hidden = np.arange(1, slices, 2)
    return kept, hidden[hidden < kept[-1]]


def allowed_strides(positions: NDArray[np.float64], largest: int = 8) -> NDArray[np.int64]:
    """Distances in slices between kept slices that open a gap of a useful width."""
    step = float(np.diff(positions).mean())
    strides = np.arange(2, min(largest, len(positions) - 1) + 1)
    fits = (strides * step >= GAPS[0]) & (strides * step <= GAPS[1])
    return strides[fits] if fits.any() else strides[:1]


def draw_tuple(
    positions: NDArray[np.float64], generator: Generator, midway: bool = False
) -> SparseTuple:
    """Keep every n-th slice from a random start and hide the rest; pick one hidden slice.

    Parameters
    ----------
    positions
        Shape ``(slices,)``, mm, at least 3.
    midway
        Only slices in the middle of their gap, for a model that knows no other place.

    Returns
    -------
    SparseTuple
        Its target lies between two kept slices; the pair is (i - a, i + b) with a + b = n.
    """
    strides = allowed_strides(positions)
    if midway:
        even = strides[strides % 2 == 0]
        strides = even if len(even) else np.array([2])
    step = float(np.diff(positions).mean())
    weights = np.exp(-1.5 * np.abs(np.log(strides * step / TYPICAL_GAP)))
    choice = torch.multinomial(torch.from_numpy(weights), 1, generator=generator)
    stride = int(strides[int(choice)])
    first = int(torch.randint(min(stride, len(positions) - stride), (), generator=generator))
    kept = np.arange(first, len(positions), stride)
    gap = int(torch.randint(len(kept) - 1, (), generator=generator))
    inside = int(torch.randint(1, stride, (), generator=generator))
    return SparseTuple(kept, int(kept[gap]) + (stride // 2 if midway else inside))
