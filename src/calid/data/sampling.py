"""Random numbers that are a pure function of seed and step, so that a resumed run agrees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator

__all__ = ["seeded"]


def seeded(*keys: int) -> Generator:
    """CPU generator whose stream depends on all keys (seed, step, rank, purpose)."""
    state = np.random.SeedSequence(keys).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
