"""The in-plane grid on which the networks work, and the way there and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from calid.errors import GeometryError
from calid.geometry.resample import Grid, resample

__all__ = ["FINEST", "LONGEST_SIDE", "PIXEL_SPACING", "NetworkGrid"]

PIXEL_SPACING = 1.5
"""In-plane spacing in mm at which the networks work."""

FINEST = 0.05
"""Smallest in-plane spacing in mm that is taken to the networks' grid."""

LONGEST_SIDE = 1500.0
"""Longest side of a slice in mm: more than any scanner's field of view. Memory grows with its
square, so that a header in wrong units would ask for all there is."""

TILE = 16
"""Sides are padded to a multiple of this: every network halves its maps at most four times."""


@dataclass(frozen=True)
class NetworkGrid:
    """The native in-plane grid, the networks' grid with the same centre, and its padding.

    Parameters
    ----------
    native, network
        ``(samples, spacing in mm)`` of rows and columns.
    padding
        Pixels on the left, right, top and bottom of the networks' grid.
    """

    native: tuple[Grid, Grid]
    network: tuple[Grid, Grid]
    padding: tuple[int, int, int, int]

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing: tuple[float, float]) -> NetworkGrid:
        """Grid for images of a shape ``(height, width)`` and ``(row, column)`` spacing in mm.

        Raises
        ------
        GeometryError
            If pixels are finer than `FINEST` or a side is longer than `LONGEST_SIDE`.
        """
        sides = [n * s for n, s in zip(shape, spacing, strict=True)]
        if not (np.min(spacing) >= FINEST and np.max(sides) <= LONGEST_SIDE):
            raise GeometryError(
                f"slices of {sides[0]:.4g} x {sides[1]:.4g} mm",
                f"Pixels have {FINEST} mm or more and sides {LONGEST_SIDE:g} mm or less; these "
                f"pixels have {spacing[0]:.3g} x {spacing[1]:.3g} mm.",
                "Correct the header's units or voxel size, or try --spacing-from.",
            )
        sizes = [max(1, round(n * s / PIXEL_SPACING)) for n, s in zip(shape, spacing, strict=True)]
        spare = [-n % TILE for n in sizes]
        return cls(
            ((shape[0], spacing[0]), (shape[1], spacing[1])),
            ((sizes[0], PIXEL_SPACING), (sizes[1], PIXEL_SPACING)),
            (spare[1] // 2, spare[1] - spare[1] // 2, spare[0] // 2, spare[0] - spare[0] // 2),
        )

    def enter(self, images: Tensor) -> Tensor:
        """Native images ``(slices, height, width)`` on the networks' grid, border repeated."""
        images = resample(images, self.native, self.network)
        return F.pad(images[:, None], self.padding, mode="replicate")[:, 0]

    def leave(self, images: Tensor) -> Tensor:
        """Images ``(slices, ...)`` of the networks' grid on the native one."""
        left, right, top, bottom = self.padding
        height, width = images.shape[-2:]
        images = images[:, top : height - bottom, left : width - right]
        return resample(images, self.network, self.native)
