"""Making a stack sparse: which slices to keep, and which hidden ones to reconstruct."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["hide_alternate"]


def hide_alternate(slices: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keep slices 0, 2, 4, ...; the hidden ones that lie between two kept ones."""
    kept = np.arange(0, slices, 2)
    hidden = np.arange(1, slices, 2)
    return kept, hidden[hidden < kept[-1]]
