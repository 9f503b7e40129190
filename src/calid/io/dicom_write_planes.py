"""Where the slices of a volume lie in DICOM's patient coordinates (LPS, mm)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from calid.errors import GeometryError
from calid.geometry.affine import check
from calid.stack import Volume

__all__ = ["Planes", "match_headers", "planes"]

Headers = Sequence[Sequence[Dataset]]
"""Source slices without pixels, ``[frame][slice]``."""

EQUAL_STEPS = 0.01
"""Largest relative difference between steps that are called one spacing."""

_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Planes:
    """The planes of a volume's slices.

    Parameters
    ----------
    orientation
        Shape ``(6,)``; unit vectors along a row, then along a column, at right angles.
    corners
        Shape ``(slices, 3)``; mm, the centre of the first pixel of every slice.
    direction
        Shape ``(3,)``; unit vector from the first slice to the last.
    spacing
        In-plane ``(row step, column step)`` in mm.
    step
        From slice to slice in mm; none if the steps differ.
    """

    orientation: NDArray[np.float64]
    corners: NDArray[np.float64]
    direction: NDArray[np.float64]
    spacing: tuple[float, float]
    step: float | None

    @property
    def locations(self) -> NDArray[np.float64]:
        """Distance of every slice from the origin along the normal, mm, shape ``(slices,)``."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return self.corners @ normal


def planes(volume: Volume) -> Planes:
    """Planes of a volume: RAS+ turned to LPS+, true slice positions kept.

    Raises
    ------
    GeometryError
        If the volume's affine cannot be used.
    """
    affine = check(volume.affine, "volume")
    axes = _TO_LPS @ affine[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    row, column, direction = axes.T
    # DICOM wants right angles; an affine may be off by as much as `check` tolerates.
    column = column - (column @ row) * row
    column /= np.linalg.norm(column)
    # The affine's planes are even; acquired slices may lie beside theirs, generated ones do not.
    step = float(np.linalg.norm(affine[:3, 2]))
    along = volume.positions - step * np.arange(len(volume.positions))
    on_plane = np.ones_like(volume.acquired) if volume.acquired.all() else ~volume.acquired
    heights = volume.positions - along[on_plane].mean()
    corners = _TO_LPS @ affine[:3, 3] + heights[:, None] * direction
    steps = np.diff(heights)
    equal = steps.size > 0 and float(np.ptp(steps)) <= EQUAL_STEPS * float(steps.mean())
    return Planes(
        # Rounded far below any scanner's precision, and without minus zeros.
        orientation=np.concatenate([row, column]).round(12) + 0.0,
        corners=corners.round(9) + 0.0,
        direction=direction,
        spacing=volume.pixel_spacing,
        step=float(steps.mean()) if equal else None,
    )


def match_headers(headers: Headers, volume: Volume, places: Planes) -> list[list[Dataset]]:
    """Source headers in the order of the volume's acquired slices, ``[frame][acquired slice]``.

    Headers are matched by position, so that a stack which runs against its files' numbers
    keeps the right ones.

    Raises
    ------
    GeometryError
        If a frame's headers do not lie one by one where the acquired slices are.
    """
    corners = places.corners[volume.acquired]
    gaps = np.diff(volume.positions[volume.acquired])
    reach = float(gaps.min()) / 2 if gaps.size else np.inf
    frames = volume.data.shape[0]
    if len(headers) != frames or any(len(frame) != len(corners) for frame in headers):
        raise GeometryError(
            "headers",
            f"{frames} frames of {len(corners)} acquired slices need one header each.",
            "Pass the headers of the stack that was reconstructed.",
        )
    matched = []
    for number, frame in enumerate(headers):
        found = np.array([header.ImagePositionPatient for header in frame], dtype=np.float64)
        off = np.abs((found[None] - corners[:, None]) @ places.direction)
        order = off.argmin(axis=1)
        if len(set(order.tolist())) < len(corners) or float(off.min(axis=1).max()) >= reach:
            raise GeometryError(
                "headers",
                f"In frame {number + 1} they do not lie where the acquired slices are.",
                "Pass the headers of the stack that was reconstructed.",
            )
        matched.append([frame[index] for index in order])
    return matched
