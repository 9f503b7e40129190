"""The eight orientations of a square image: four rotations, and their reflections."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["turn", "turn_back"]


def turn(images: Tensor, number: int) -> Tensor:
    """Images ``(..., height, width)`` in orientation ``number``, modulo 8; 0 is as they are."""
    images = images.flip(-1) if number % 8 >= 4 else images
    return torch.rot90(images, number % 4, (-2, -1)).contiguous()


def turn_back(images: Tensor, number: int) -> Tensor:
    """Undo `turn`."""
    images = torch.rot90(images, -number % 4, (-2, -1))
    return images.flip(-1) if number % 8 >= 4 else images
