"""Neighbours for the tests of latent rules."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from calid.models.interpolator import Neighbours

CHANNELS, SIDE = 3, 8
PLACES = (0.0, 8.0, 18.0, 26.0)
"""Of four slices in mm; targets lie between the second and the third."""


def slices(seed: int = 2) -> torch.Tensor:
    """Latents of four slices ``(4, channels, side, side)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(PLACES), CHANNELS, SIDE, SIDE, generator=generator)


def neighbours(latents: torch.Tensor, targets: Sequence[float], alone: bool = False) -> Neighbours:
    """Of targets in the middle gap; registered slices are not a number, no rule may look at them.

    Parameters
    ----------
    latents
        Of four slices.
    targets
        mm.
    alone
        There are no next slices.
    """
    lowest, below, above, highest = PLACES
    order = torch.tensor([below, above, lowest, highest])
    distance = order - torch.tensor(targets)[:, None]
    adjacent = latents[1:3].expand(len(targets), *[-1] * 4)
    beyond = latents[[0, 3]].expand(len(targets), *[-1] * 4)
    if alone:
        distance = torch.cat([distance[:, :2], torch.zeros(len(targets), 2)], 1)
        beyond = torch.zeros_like(beyond)
    return Neighbours(adjacent, distance, torch.full_like(adjacent, torch.nan), beyond)
