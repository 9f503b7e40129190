"""Means over subjects with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "bootstrap"]


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: NDArray[np.float64], seed: int = 0, draws: int = 2000) -> Interval:
    """Percentile bootstrap of the mean over subjects (Efron, 1979).

    Parameters
    ----------
    values
        Shape ``(subjects,)``, one figure a subject.
    """
    generator = np.random.default_rng(seed)
    picks = generator.integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return Interval(float(values.mean()), float(low), float(high))
