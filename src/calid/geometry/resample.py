"""In-plane resampling between pixel grids that share a centre.

Both axes are separable, so an image is resampled by two small matrices:
``resampled = rows @ image @ columns.T``. The matrices are explicit and the same on every
device. Refining is exact on ramps; coarsening shifts a ramp by at most 2.5 % of a pixel.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Grid", "interpolation_matrix", "resample"]

Grid = tuple[int, float]
"""Number of samples along an axis and their spacing in mm."""


def _cubic_kernel(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    """Cubic convolution kernel (Keys, IEEE TASSP 1981), third-order for ``a = -1/2``."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def interpolation_matrix(source: Grid, target: Grid) -> NDArray[np.float32]:
    """Cubic interpolation from one centred grid to another, low-passed when it coarsens.

    Parameters
    ----------
    source, target
        ``(samples, spacing in mm)`` of the grids; their centres coincide.

    Returns
    -------
    NDArray
        Shape ``(target samples, source samples)``. Rows sum to 1; beyond the source's edge
        the edge value is repeated.
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


def resample(images: Tensor, source: tuple[Grid, Grid], target: tuple[Grid, Grid]) -> Tensor:
    """Resample images from one centred in-plane grid to another.

    Parameters
    ----------
    images
        Shape ``(..., height, width)``, floating point.
    source, target
        Grids of the rows and of the columns.

    Returns
    -------
    Tensor
        Shape ``(..., target height, target width)``; the input itself where grids agree.
    """
    for axis, (old, new) in zip((-2, -1), zip(source, target, strict=True), strict=True):
        if old[0] == new[0] and np.isclose(old[1], new[1], rtol=1e-6):
            continue
        matrix = torch.from_numpy(interpolation_matrix(old, new)).to(images)
        images = matrix @ images if axis == -2 else images @ matrix.T
    return images
