"""What makes a clean drawing look scanned: smooth random fields and Rician noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["NoiseField", "cover", "rician"]

Array = NDArray[np.float32]


class NoiseField:
    """A smooth random function of space, periodic, of mean 0 and standard deviation 1.

    Parameters
    ----------
    rng
        Source of randomness.
    cells
        Grid points per axis of one period.
    smoothing
        Standard deviation of the smoothing kernel in grid cells.
    """

    def __init__(self, rng: np.random.Generator, cells: int = 40, smoothing: float = 1.2) -> None:
        white = rng.standard_normal((cells, cells, cells), dtype=np.float32)
        smooth = ndimage.gaussian_filter(white, smoothing, mode="wrap")
        self._grid: Array = ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)

    def __call__(self, x: Array, y: Array, z: Array, scale: float, shift: float = 0.0) -> Array:
        """Sample the field.

        Parameters
        ----------
        x, y, z
            Coordinates in mm, broadcast against each other.
        scale
            Millimetres per grid cell; features are about three cells wide.
        shift
            Offset in cells, so that one field serves several uses.

        Returns
        -------
        ndarray
            float32, the broadcast shape.
        """
        factor = np.float32(1 / scale)
        points = np.broadcast_arrays(
            z * factor + np.float32(shift),
            y * factor + np.float32(1.7 * shift),
            x * factor + np.float32(2.3 * shift),
        )
        out = np.empty(points[0].shape, np.float32)
        ndimage.map_coordinates(self._grid, points, output=out, order=1, mode="grid-wrap")
        return out


def cover(distance: Array, width: float = 0.8) -> Array:
    """Soft coverage of a region from its signed distance.

    Parameters
    ----------
    distance
        Millimetres, negative inside.
    width
        Half the width of the edge in mm.

    Returns
    -------
    ndarray
        1 inside, 0 outside, a smooth step in between.
    """
    t = np.clip(np.float32(0.5) - distance * np.float32(0.5 / width), 0, 1)
    smooth: Array = t * t * (np.float32(3) - np.float32(2) * t)
    return smooth


def rician(signal: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Magnitude of a complex signal with Gaussian noise of standard deviation ``sigma``."""
    real = signal + np.float32(sigma) * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = np.float32(sigma) * rng.standard_normal(signal.shape, dtype=np.float32)
    magnitude: Array = np.sqrt(real * real + imaginary * imaginary)
    return magnitude
