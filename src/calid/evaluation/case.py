"""What a method is given and what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """One stack, made sparse.

    Parameters
    ----------
    subject, name
        Who, and which stack of theirs.
    images
        What the method sees, ``(frames, slices, height, width)``, window units.
    positions
        Of the slices, ``(slices,)``, mm, increasing.
    targets
        Where it has to answer, ``(targets,)``, mm, increasing, strictly between slices.
    truth
        The answer, ``(frames, targets, height, width)``, window units.
    spacing
        In-plane ``(row, column)`` spacing in mm.
    labels, truth_labels
        Manual labels of ``images`` and of ``truth``, uint8; absent where there are none.
    groups
        Ways to split the results: name to one value a target.
    """

    subject: str
    name: str
    images: NDArray[np.float32]
    positions: NDArray[np.float64]
    targets: NDArray[np.float64]
    truth: NDArray[np.float32]
    spacing: tuple[float, float]
    labels: NDArray[np.uint8] | None = None
    truth_labels: NDArray[np.uint8] | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
