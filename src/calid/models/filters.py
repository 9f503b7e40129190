"""Separable filters of the last two axes, each as two small matrices.

An axis has a few hundred pixels: multiplying by a banded matrix is several times faster there
than a convolution of one channel or a pooling with a stride of one, and as exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calid.precision import exact

__all__ = ["box_means", "gaussian_means"]


def gaussian_means(images: Tensor, sigma: float) -> Tensor:
    """Gaussian filter, the border repeated.

    Parameters
    ----------
    images
        Shape ``(..., height, width)``.
    sigma
        Standard deviation in pixels; the kernel ends at three of them.

    Returns
    -------
    Tensor
        float32, same shape.
    """
    reach = round(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    weights = weights / weights.sum()

    def matrix(size: int) -> Tensor:
        taps = torch.arange(size, device=images.device)[:, None] + offsets
        empty = images.new_zeros(size, size, dtype=torch.float32)
        return empty.scatter_add_(1, taps.clamp(0, size - 1), weights.expand_as(taps))

    return _filtered(images, matrix(images.shape[-2]), matrix(images.shape[-1]))


def box_means(images: Tensor, radius: int) -> Tensor:
    """Means over squares of side ``2 * radius + 1``, of what lies inside of the image.

    Parameters
    ----------
    images
        Shape ``(..., height, width)``.
    radius
        Pixels.

    Returns
    -------
    Tensor
        float32, same shape.
    """

    def matrix(size: int) -> Tensor:
        place = torch.arange(size, device=images.device)
        inside = ((place[:, None] - place).abs() <= radius).float()
        return inside / inside.sum(1, keepdim=True)

    return _filtered(images, matrix(images.shape[-2]), matrix(images.shape[-1]))


def _filtered(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    # What is filtered here is solved for or divided by.
    with exact(images.device):
        return rows @ images.float() @ columns.T
