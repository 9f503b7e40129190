"""The in-plane grid of the interpolator: the image's own pixels, or a whole fraction of them.

Scanners interpolate: an image of 0.7 mm pixels was often measured at 1.4 mm and enlarged by filling
its spectrum with zeros. Such an image goes to the coarser grid by cutting its spectrum and comes
back by filling it again, and nothing is lost. An image whose pixels are not finer than `FINEST`
is not resampled at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dct
from torch import Tensor

__all__ = ["FINEST", "PixelGrid"]

FINEST = 1.0
"""Smallest pixel of the interpolator's grid in mm. Cine MR is measured at 1.1 to 2.0 mm."""

TILE = 16
"""Sides are padded to a multiple of this: the autoencoder and the U-Net halve their maps four
times."""


@dataclass(frozen=True)
class PixelGrid:
    """Own pixels of an image and the grid on which the networks see it.

    Parameters
    ----------
    shape
        Height and width of the image.
    size
        Height and width of the grid without its padding: those of the image, or a whole fraction
        of them, rounded down.
    spacing
        Pixel size of the grid in mm, by rows and by columns.
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    spacing: tuple[float, float]

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing: tuple[float, float]) -> PixelGrid:
        """Grid of images ``(..., height, width)`` with a ``(row, column)`` spacing in mm."""
        height, width = shape[-2:]
        # Rounding keeps a header that says 0.99999 from being halved.
        rows, columns = (math.ceil(round(FINEST / s, 3)) for s in spacing)
        size = max(1, height // max(1, rows)), max(1, width // max(1, columns))
        return cls(
            (height, width), size, (spacing[0] * (height / size[0]), spacing[1] * (width / size[1]))
        )

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Pixels that `enter` adds on the left, right, top and bottom."""
        height, width = (-n % TILE for n in self.size)
        return width // 2, width - width // 2, height // 2, height - height // 2

    def enter(self, images: Tensor) -> Tensor:
        """Images ``(slices, height, width)`` on the padded grid, where the edge is repeated."""
        return F.pad(self.coarsened(images)[:, None], self.padding, mode="replicate")[:, 0]

    def coarsened(self, images: Tensor) -> Tensor:
        """Images ``(..., height, width)`` on the grid without padding."""
        for axis in (-2, -1):
            images = _resized(images, axis, self.size[axis])
        return images

    def leave(self, images: Tensor) -> Tensor:
        """Images ``(slices, ...)`` of the padded grid in the image's own pixels.

        ``enter(leave(x))`` is ``x`` inside the padding. ``leave(enter(x))`` is ``x`` where the
        grid is the image's own, and where the image holds no more detail than the grid can.
        """
        left, _, top, _ = self.padding
        images = images[:, top : top + self.size[0], left : left + self.size[1]]
        for axis in (-2, -1):
            images = _resized(images, axis, self.shape[axis])
        return images


def _resized(images: Tensor, axis: int, size: int) -> Tensor:
    """Cut or fill up the cosine spectrum along one axis; the images themselves at their own size.

    The type II cosine transform continues an image as in a mirror: its edges do not ring as those
    of a Fourier transform do.
    """
    given = images.shape[axis]
    if size == given:
        return images
    kept = min(size, given)
    there = dct(np.eye(given), axis=0, norm="ortho")[:kept]
    back = dct(np.eye(size), axis=0, norm="ortho")[:kept].T
    # Constants stay what they are.
    matrix = torch.from_numpy(math.sqrt(size / given) * back @ there).to(images)
    return matrix @ images if axis == -2 else images @ matrix.T
