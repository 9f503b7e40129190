"""Thick slices across a dense volume, in any direction: what a scanner would have given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from calid.data.phantom import slice_profile
from calid.errors import GeometryError
from calid.stack import SliceStack

__all__ = ["LANDMARKS", "Reslicer", "SliceAxis", "own_axis", "short_axis"]


@dataclass(frozen=True)
class SliceAxis:
    """Where slices lie, RAS millimetres and unit vectors.

    Parameters
    ----------
    origin
        Centre of the first slice.
    rows, columns, normal
        Directions of increasing row, column and slice.
    length
        From the first possible slice centre to the last, mm.
    height, width
        Of the field of view, mm.
    """

    origin: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    normal: NDArray[np.float64]
    length: float
    height: float
    width: float


def short_axis(
    base: Sequence[float], apex: Sequence[float], height: float, width: float
) -> SliceAxis:
    """Slices across the line from base to apex; columns run as far to the left as they can.

    Parameters
    ----------
    base, apex
        Points on the long axis where the slices begin and end, RAS millimetres.
    height, width
        Size in mm of a field of view about the axis that the volume fills.
    """
    origin = np.array(base)
    line = np.array(apex) - origin
    length = float(np.linalg.norm(line))
    normal = line / length
    # Left, or back if the axis itself runs left or right.
    towards = np.array([-1.0, 0, 0] if abs(normal[0]) < 0.9 else [0, -1.0, 0])
    columns = towards - normal * (normal @ towards)
    columns /= np.linalg.norm(columns)
    rows = np.cross(columns, normal)
    return SliceAxis(origin, rows, columns, normal, length, height, width)


LANDMARKS = {
    # Read off the images: the ventricles lie side by side, to the left and right of a septum
    # near the midline, and point forwards and 32 degrees down.
    "hvsmr_pat4": short_axis((-2.9, -23.4, 29.6), (-2.9, 10.5, 8.2), 54.0, 72.0)
}
"""Of dense volumes whose own axes are not the heart's, by file name without suffix."""


def own_axis(volume: SliceStack, margin: float) -> SliceAxis:
    """The volume's own axes: the third is the long one.

    Parameters
    ----------
    margin
        Distance in mm between a slice's centre and what it still sees; the outermost slices
        lie this far inside, so that all of them see tissue only.

    Raises
    ------
    GeometryError
        If no slice fits between the margins.
    """
    steps = np.linalg.norm(volume.affine[:3, :3], axis=0)
    columns, rows, normal = (volume.affine[:3, :3] / steps).T
    sizes = np.array(volume.shape[:0:-1])
    length = float((sizes[2] - 1) * steps[2]) - 2 * margin
    if length <= 0:
        raise GeometryError(
            volume.source, f"It is thinner than a slice, {2 * margin:g} mm.", "Give a whole heart."
        )
    middle = (sizes[:2] - 1) / 2
    origin = (volume.affine @ [*middle, margin / steps[2], 1])[:3]
    width, height = (sizes[:2] * steps[:2]).tolist()
    return SliceAxis(origin, rows, columns, normal, length, height, width)


class Reslicer:
    """Samples the first frame of a volume along one axis.

    Cubic splines between voxels; the volume is mirrored at its edges.

    Parameters
    ----------
    axis
        Where slices lie.
    spacing
        Pixel size of the slices in mm, the same in rows and columns.
    field_of_view
        Largest height and width in mm.
    """

    def __init__(
        self, volume: SliceStack, axis: SliceAxis, spacing: float, field_of_view: float
    ) -> None:
        self._axis = axis
        self._knots = ndimage.spline_filter(volume.data[0].astype(np.float64), mode="mirror")
        self._to_voxels = np.linalg.inv(volume.affine)
        sides = (min(extent, field_of_view) for extent in (axis.height, axis.width))
        down, across = (
            (np.arange(n) - (n - 1) / 2) * spacing for n in (int(s / spacing) for s in sides)
        )
        self._plane = down[:, None, None] * axis.rows + across[:, None] * axis.columns

    def slices(self, positions: NDArray[np.float64], thickness: float) -> NDArray[np.float32]:
        """Integrals over the profile of `slice_profile`.

        Parameters
        ----------
        positions
            Shape ``(slices,)``, mm from the axis's origin.
        thickness
            Full width at half maximum in mm; 0 samples planes.

        Returns
        -------
        NDArray
            Shape ``(slices, height, width)``, the volume's stored units.
        """
        profile = list(zip(*slice_profile(thickness), strict=True))
        out = [
            sum(
                weight
                * ndimage.map_coordinates(
                    self._knots, self._voxels(position + offset), mode="mirror", prefilter=False
                )
                for offset, weight in profile
            )
            for position in positions
        ]
        return np.asarray(out, np.float32)

    def outside(self, positions: NDArray[np.float64]) -> float:
        """Share of the pixels of planes at some positions that lie beyond the volume's edge."""
        sizes = np.array(self._knots.shape)[:, None, None, None]
        voxels = np.stack([self._voxels(float(p)) for p in positions], 1)
        inside = (voxels >= -0.5) & (voxels <= sizes - 0.5)
        return float(1 - inside.all(0).mean())

    def _voxels(self, position: float) -> NDArray[np.float64]:
        """Indices ``(3, height, width)`` into slices, rows and columns of the volume."""
        points = self._axis.origin + position * self._axis.normal + self._plane
        voxels = points @ self._to_voxels[:3, :3].T + self._to_voxels[:3, 3]
        return np.moveaxis(voxels[..., ::-1], -1, 0)
