"""How a short-axis stack is turned before it is shown.

The stack's own planes become the planes of the page, whatever the scanner's axes. Voxels stay
as they are; only the affine that the page gets is turned, and never mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DisplayFrame", "letters"]

NAMES = (("R", "L"), ("A", "P"), ("H", "F"))
"""Of the positive and the negative direction of each RAS axis."""

OBLIQUE = 0.38
"""Least share of a unit vector that gets a letter of its own: about 22 degrees."""


@dataclass(frozen=True, eq=False)
class DisplayFrame:
    """Right, up and towards the viewer of the short-axis plane.

    Parameters
    ----------
    axes
        Shape ``(3, 3)``; rows are these three directions, unit vectors in RAS.
    centre
        Shape ``(3,)``; the RAS point in mm that becomes the page's origin.
    """

    axes: NDArray[np.float64]
    centre: NDArray[np.float64]

    @classmethod
    def of(cls, affine: NDArray[np.float64], shape: tuple[int, ...]) -> DisplayFrame:
        """Frame in which a stack lies as on a reading station.

        Left, or else posterior, is on the right-hand side; head, or else anterior, is at the
        top. The view is from the side that makes this a rotation.

        Parameters
        ----------
        affine
            Of the stack, shape ``(4, 4)``, to RAS mm.
        shape
            Ends with ``(slices, height, width)``.
        """
        columns, rows = (affine[:3, k] / np.linalg.norm(affine[:3, k]) for k in (0, 1))
        right, up = columns, rows
        if np.argmax(abs(columns)) > np.argmax(abs(rows)):
            right, up = rows, columns
        right = -right * np.sign(right[np.argmax(abs(right))])
        up = up * np.sign(up[np.argmax(abs(up))])
        up = up - (up @ right) * right  # header rounding can leave them a little askew
        up /= np.linalg.norm(up)
        middle = (np.array([*shape[:-4:-1], 2.0]) - 1) / 2
        middle[3] = 1
        return cls(np.stack([right, up, np.cross(right, up)]), (affine @ middle)[:3])

    def turn(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        """The affine, shape ``(4, 4)``, from the same voxels to page millimetres."""
        turned = np.eye(4)
        turned[:3] = self.axes @ affine[:3]
        turned[:3, 3] -= self.axes @ self.centre
        return turned

    def directions(self) -> dict[str, tuple[str, str]]:
        """Letters of both ends of every axis: ``right``, ``up`` and ``towards``."""
        names = ("right", "up", "towards")
        return {
            name: (letters(axis), letters(-axis))
            for name, axis in zip(names, self.axes, strict=True)
        }


def letters(direction: NDArray[np.float64]) -> str:
    """Patient directions of a RAS unit vector, the largest share first: ``L``, ``PF``, ..."""
    order = np.argsort(-abs(direction), kind="stable")
    kept = [k for k in order if abs(direction[k]) >= OBLIQUE]
    return "".join(NAMES[k][int(direction[k] < 0)] for k in kept)
