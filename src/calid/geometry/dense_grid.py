"""Even planes through uneven slices: where the slices of a dense volume lie.

Planes of a volume are evenly spaced, but slices may not be: one is missing, or they jitter. The
step is the one nearest to the wanted step that puts every acquired slice on a plane, within
`ROUNDING`. If there is none, slices may lie up to `TOLERANCE` from their plane, and the grid is
fitted to all of them. Nothing is moved or resampled: a slice keeps its pixels and its true
position, and only the plane on which a file shows it is slightly off. Beyond that tolerance there
is no grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calid.errors import GeometryError
from calid.geometry.affine import Affine
from calid.words import span

__all__ = ["ROUNDING", "TOLERANCE", "DenseGrid", "dense_grid", "offsets", "usual_gap"]

ROUNDING = 0.01
"""Distance in mm between slice and plane that is put down to rounded headers."""
TOLERANCE = 0.5
"""Largest distance in mm between a slice and the plane that it is shown on."""
_SHARE = 0.4  # of a step: no generated slice may lie on the wrong side of an acquired one
_REACH = 2.0  # ratio to the wanted step within which a step is looked for


@dataclass(frozen=True, eq=False)
class DenseGrid:
    """Planes at ``start + step * k``, in mm on the stack's own axis."""

    start: float
    step: float
    index: NDArray[np.intp]  # (slices,), the plane of every acquired slice, increasing, 0 first

    @property
    def planes(self) -> NDArray[np.float64]:
        """Positions of all planes in mm, from the first slice's to the last one's."""
        return self.start + self.step * np.arange(int(self.index[-1]) + 1, dtype=np.float64)


def usual_gap(positions: NDArray[np.float64]) -> float:
    """The gap in mm that a stack was planned with: the lower median of its gaps."""
    gaps = np.sort(np.diff(positions))
    return float(gaps[(len(gaps) - 1) // 2])


def dense_grid(positions: NDArray[np.float64], factor: int, source: object) -> DenseGrid:
    """Planes for slices at any distance.

    ``positions`` are mm, strictly increasing; ``factor`` is the number of steps into which the
    usual gap is cut. Equal gaps are cut into exactly that many. Raises a `GeometryError` about
    ``source`` if no step between half and twice the wanted one fits.
    """
    wanted = usual_gap(positions) / factor
    found = _search(positions, wanted, wanted / _REACH, wanted * _REACH)
    if found is not None:
        return found
    gaps = np.diff(positions)
    finer = _search(positions, wanted, 0.1, wanted / _REACH)
    advice = "" if finer is None else f"Ask for thinner slices: `spacing` {finer.step:.3g}. Or "
    raise GeometryError(
        source,
        f"Gaps of {span(gaps)} mm fit no even planes near "
        f"{wanted:.3g} mm: a slice would be shown more than {TOLERANCE:g} mm from its place.",
        f"{advice}{'leave' if advice else 'Leave'} out the slice that does not fit.",
    )


def offsets(
    positions: NDArray[np.float64], volume_affine: Affine, stack_affine: Affine
) -> NDArray[np.float64]:
    """Distance in mm from the plane on which a volume's file shows a slice to its true place.

    ``positions`` of the volume's slices are mm on the stack's axis.
    """
    step = float(np.linalg.norm(volume_affine[:3, 2]))
    normal = volume_affine[:3, 2] / step
    start = float(normal @ (volume_affine[:3, 3] - stack_affine[:3, 3]))
    return np.asarray(positions - start - step * np.arange(len(positions)))


def _search(
    positions: NDArray[np.float64], wanted: float, least: float, most: float
) -> DenseGrid | None:
    """The grid whose step, between two bounds, is nearest to the wanted one in ratio."""
    span = float(positions[-1] - positions[0])
    steps = np.arange(np.ceil(span / most - 1e-9), np.floor(span / least + 1e-9) + 1)
    steps = steps[steps >= len(positions) - 1]
    order = np.argsort(np.abs(np.log(span / steps / wanted)), kind="stable")
    for fit, tolerance in ((_anchored, ROUNDING), (_fitted, TOLERANCE)):
        for count in steps[order]:
            grid = fit(positions, span / count)
            away = np.abs(positions - grid.planes[grid.index]).max()
            if np.all(np.diff(grid.index) > 0) and away <= min(tolerance, _SHARE * grid.step):
                return grid
    return None


def _anchored(positions: NDArray[np.float64], step: float) -> DenseGrid:
    """Planes from the first slice on."""
    index = np.rint((positions - positions[0]) / step).astype(np.intp)
    return DenseGrid(float(positions[0]), step, index)


def _fitted(positions: NDArray[np.float64], step: float) -> DenseGrid:
    """Planes that come nearest to all slices, in the sense of least squares."""
    grid = _anchored(positions, step)
    if np.any(np.diff(grid.index) <= 0):
        return grid
    slope, start = np.polyfit(grid.index.astype(np.float64), positions, 1)
    return DenseGrid(float(start), float(slope), grid.index)
