"""The in-plane grid of 1.5 mm on which the segmentation network works, and the way there and back.

Grids share their centre. Both axes are separable, so an image is resampled by two small matrices:
``resampled = rows @ image @ columns.T``. The matrices are explicit and the same on every
device. Refining is exact on ramps; coarsening shifts a ramp by at most 2.5 % of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from calid.errors import GeometryError

__all__ = [
    "FINEST",
    "LONGEST_SIDE",
    "PIXEL_SPACING",
    "Grid",
    "NetworkGrid",
    "interpolation_matrix",
    "resample",
]

Grid = tuple[int, float]
"""Number of samples along an axis and their spacing in mm."""

PIXEL_SPACING = 1.5
"""In-plane spacing in mm of the network's grid."""

FINEST = 0.05
"""Smallest in-plane spacing in mm that is taken to the network's grid."""

LONGEST_SIDE = 1500.0
"""Longest side of a slice in mm: more than any scanner's field of view. Memory grows with its
square, so that a header in wrong units would ask for all there is."""

TILE = 16
"""Sides are padded to a multiple of this: every network halves its maps at most four times."""


@dataclass(frozen=True)
class NetworkGrid:
    """The native in-plane grid, the network's grid with the same centre, and its padding."""

    native: tuple[Grid, Grid]  # rows and columns
    network: tuple[Grid, Grid]
    padding: tuple[int, int, int, int]  # pixels on the left, right, top and bottom

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing: tuple[float, float]) -> NetworkGrid:
        """Grid for images of a shape ``(height, width)`` and ``(row, column)`` spacing in mm.

        A `GeometryError` if pixels are finer than `FINEST` or a side is longer than `LONGEST_SIDE`.
        """
        sides = [n * s for n, s in zip(shape, spacing, strict=True)]
        if not (np.min(spacing) >= FINEST and np.max(sides) <= LONGEST_SIDE):
            raise GeometryError(
                f"slices of {sides[0]:.4g} x {sides[1]:.4g} mm",
                f"Pixels have {FINEST} mm or more and sides {LONGEST_SIDE:g} mm or less; these "
                f"pixels have {spacing[0]:.3g} x {spacing[1]:.3g} mm.",
                "Correct the header's units or voxel size, or try `spacing_from`.",
            )
        rows, columns = (max(1, round(side / PIXEL_SPACING)) for side in sides)
        return cls(
            ((shape[0], spacing[0]), (shape[1], spacing[1])),
            ((rows, PIXEL_SPACING), (columns, PIXEL_SPACING)),
            tile_padding(rows, columns),
        )

    def enter(self, images: Tensor) -> Tensor:
        """Native images ``(slices, height, width)`` on the network's grid, border repeated."""
        images = resample(images, self.native, self.network)
        return F.pad(images[:, None], self.padding, mode="replicate")[:, 0]

    def leave(self, images: Tensor) -> Tensor:
        """Images ``(slices, ...)`` of the network's grid on the native one."""
        left, right, top, bottom = self.padding
        height, width = images.shape[-2:]
        images = images[:, top : height - bottom, left : width - right]
        return resample(images, self.network, self.native)


def tile_padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels to add on the left, right, top and bottom to make the sides multiples of `TILE`."""
    rows, columns = -height % TILE, -width % TILE
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def resample(images: Tensor, source: tuple[Grid, Grid], target: tuple[Grid, Grid]) -> Tensor:
    """Resample images ``(..., height, width)`` from one centred in-plane grid to another.

    Grids are those of the rows and of the columns; where they agree, nothing is done.
    """
    for axis, (old, new) in zip((-2, -1), zip(source, target, strict=True), strict=True):
        if old[0] == new[0] and np.isclose(old[1], new[1], rtol=1e-6):
            continue
        matrix = torch.from_numpy(interpolation_matrix(old, new)).to(images)
        images = matrix @ images if axis == -2 else images @ matrix.T
    return images


def interpolation_matrix(source: Grid, target: Grid) -> NDArray[np.float32]:
    """Cubic interpolation from one centred grid to another, low-passed when it coarsens.

    Shape ``(target samples, source samples)``. Rows sum to 1; beyond the source's edge the edge
    value is repeated.
    """
    (n_in, step_in), (n_out, step_out) = source, target
    position = (np.arange(n_out) - (n_out - 1) / 2) * step_out / step_in + (n_in - 1) / 2
    # Widening the kernel to the target's pixel keeps frequencies out that it cannot hold.
    width = max(1.0, step_out / step_in)
    reach = int(np.ceil(2 * width))
    taps = np.floor(position)[:, None].astype(int) + np.arange(-reach, reach + 1)
    weights = _cubic_kernel((position[:, None] - taps) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((n_out, n_in))
    rows = np.broadcast_to(np.arange(n_out)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, n_in - 1)), weights)
    return matrix.astype(np.float32)


def _cubic_kernel(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    """Cubic convolution kernel (Keys, IEEE TASSP 1981), third-order for ``a = -1/2``."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
