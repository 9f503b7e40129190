"""From a stack to a volume by any method: where slices lie, and the one loop that fills gaps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calid.baselines.rules import Method
from calid.data.intensity import IntensityWindow
from calid.errors import CalidWarning, UsageError, WeightsError
from calid.geometry.affine import dense_affine
from calid.geometry.dense_grid import ROUNDING, dense_grid, usual_gap
from calid.stack import SliceStack, Volume

__all__ = [
    "MAX_SLICES",
    "DensePlan",
    "FilmMethod",
    "check_density",
    "choose_factor",
    "densify",
    "densify_like",
    "each_frame",
    "fill",
    "plan",
]

FINEST = 0.1
"""Smallest through-plane spacing in mm that can be asked for."""

MAX_SLICES = 4096
"""Most slices of a dense volume; a heart of 20 cm is then cut every 0.05 mm."""

FilmMethod = Callable[
    [NDArray[np.float32], NDArray[np.float64], NDArray[np.float64], tuple[float, float]],
    Iterator[tuple[slice, NDArray[np.float32]]],
]
"""A `Method` for films ``(frames, slices, height, width)``, which answers in parts.

Each part is a slice of the targets and their images ``(samples, frames, targets, height, width)``.
The parts are in order and cover all targets. A stack is a film of one frame.
"""


def each_frame(method: Method) -> FilmMethod:
    """A method of single frames for films: one sample, every frame on its own."""

    def film(
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        answers = [method(frame, positions, targets, spacing) for frame in images]
        yield slice(0, len(targets)), np.stack(answers)[None]

    return film


@dataclass(frozen=True)
class DensePlan:
    """Where the slices of a dense volume lie and which of them are the scanner's.

    Parameters
    ----------
    positions
        Shape ``(dense slices,)``, mm: of acquired slices the true ones, else on even planes.
    acquired
        Shape ``(dense slices,)``.
    affine
        Shape ``(4, 4)``, of the even planes.
    """

    positions: NDArray[np.float64]
    acquired: NDArray[np.bool_]
    affine: NDArray[np.float64]


def choose_factor(stack: SliceStack, factor: int | None, spacing: float | None) -> int:
    """Number of steps into which the usual gap is cut.

    Parameters
    ----------
    factor
        The number itself, if it is given.
    spacing
        Wanted through-plane spacing in mm. Acquired slices stay on the grid, so the factor
        whose spacing comes nearest in ratio is taken. With neither, the wanted spacing is the
        in-plane one, for isotropic voxels.

    Raises
    ------
    UsageError
        As `check_density`, or if the volume would have more than `MAX_SLICES` slices.
    """
    check_density(factor, spacing)
    if factor is not None:
        return _affordable(stack, factor)
    wanted = float(np.mean(stack.pixel_spacing)) if spacing is None else spacing
    # More than the limit is refused below, however much more it is.
    ratio = min(usual_gap(stack.positions) / wanted, 2.0 * MAX_SLICES)
    below = max(1, int(np.floor(ratio)))
    near = below if ratio / below < (below + 1) / ratio else below + 1
    return _affordable(stack, near)


def check_density(factor: int | None, spacing: float | None) -> None:
    """Refuse values that `choose_factor` cannot use for any stack.

    Raises
    ------
    UsageError
        If both are given, or one is not positive.
    """
    if factor is not None and spacing is not None:
        raise UsageError(
            "`factor` and `spacing`", "They exclude each other.", "Give one of the two."
        )
    if factor is not None and factor < 1:
        raise UsageError("`factor`", f"{factor} is not a positive number.", "Use 1 or more.")
    if spacing is not None and not (np.isfinite(spacing) and spacing > 0):
        raise UsageError("`spacing`", f"{spacing} mm is not a spacing.", "Give a positive number.")
    if spacing is not None and spacing < FINEST:
        raise UsageError(
            "`spacing`", f"{spacing:g} mm is finer than any scan.", f"Give {FINEST:g} mm or more."
        )


def _affordable(stack: SliceStack, factor: int) -> int:
    if (stack.n_slices - 1) * factor + 1 > MAX_SLICES:
        raise UsageError(
            "`factor` or `spacing`",
            f"Steps of {float(stack.gaps.mean()) / factor:.3g} mm make more than {MAX_SLICES} "
            "slices.",
            "Ask for fewer slices; if the spacing looks wrong, see `spacing_from`.",
        )
    return factor


def plan(stack: SliceStack, factor: int) -> DensePlan:
    """Planes that cut the usual gap into ``factor`` steps, and all acquired slices on them.

    With equal gaps these are ``(slices - 1) * factor + 1`` slices.

    Raises
    ------
    GeometryError
        If gaps are too uneven; see `calid.geometry.dense_grid`.

    Warns
    -----
    CalidWarning
        If a slice lies beside its plane.
    """
    grid = dense_grid(stack.positions, factor, stack.source)
    places = grid.planes
    away = float(np.abs(places[grid.index] - stack.positions).max())
    if away > ROUNDING:
        warnings.warn(
            f"{stack.source}: slices lie up to {away:.2g} mm beside the even planes, "
            f"{grid.step:.4g} mm apart, of the output. They are unchanged; the record beside it "
            "says where they are.",
            CalidWarning,
            stacklevel=2,
        )
    places[grid.index] = stack.positions
    acquired = np.zeros(len(places), np.bool_)
    acquired[grid.index] = True
    return DensePlan(places, acquired, dense_affine(stack.affine, grid.step, grid.start))


def fill(
    stack: SliceStack,
    method: FilmMethod,
    dense: DensePlan,
    uncertainty: bool = False,
    on_frame: Callable[[int], None] = lambda frame: None,
) -> Volume:
    """Fill the slices of a plan.

    Parameters
    ----------
    method
        Generates the slices between; its samples are averaged.
    dense
        Where slices lie, from `plan`.
    uncertainty
        Keep the standard deviation over samples, at least 2.
    on_frame
        Called with the number of frames done, in proportion to the targets that are done.

    Returns
    -------
    Volume
        Acquired slices are those of the stack bit for bit, with equal gaps at multiples of
        ``factor``. Generated ones are computed at true distances from them, have the stack's
        dtype and stay within the range of its values.

    Raises
    ------
    WeightsError
        If the method answers with values that are not finite.
    """
    targets = dense.positions[~dense.acquired]
    filling = _Filling(stack, dense, uncertainty)
    if len(targets):
        images = np.stack([_shown(frame, filling.window) for frame in stack.data])
        for some, samples in method(images, stack.positions, targets, stack.pixel_spacing):
            filling.put(some, samples)
            on_frame(stack.n_frames * some.stop // len(targets))
    return filling.volume()


def densify(stack: SliceStack, method: Method, factor: int) -> Volume:
    """Fill every gap by a method of single frames; ``factor`` is of `choose_factor`."""
    return fill(stack, each_frame(method), plan(stack, factor))


def densify_like(volume: Volume, stack: SliceStack, method: Method) -> Volume:
    """Fill the gaps of a stack by a method of single frames, at the places of another volume.

    Parameters
    ----------
    volume
        Its slices lie where those of the result will lie; its frames do not matter.
    stack
        What it was made from, or some frames of it.
    """
    places = DensePlan(volume.positions, volume.acquired, volume.affine)
    return fill(stack, each_frame(method), places)


class _Filling:
    """A volume that is being filled; its acquired slices are there from the start."""

    def __init__(self, stack: SliceStack, dense: DensePlan, uncertainty: bool) -> None:
        self.stack, self.dense = stack, dense
        shape = stack.n_frames, len(dense.positions), *stack.shape[2:]
        self.data = np.empty(shape, stack.data.dtype)
        self.data[:, dense.acquired] = stack.data
        self.spread = np.zeros(shape, np.float32) if uncertainty else None
        self.window = IntensityWindow.of(stack.data, stack.intensity)
        self.generated = np.flatnonzero(~dense.acquired)

    def put(self, targets: slice, samples: NDArray[np.float32]) -> None:
        """Keep the mean of samples ``(samples, frames, targets, height, width)``."""
        if not np.isfinite(samples).all():
            raise WeightsError(
                self.stack.source,
                "The networks answered with values that are not numbers.",
                "Check the weights.",
            )
        window, stored = self.window, self.stack.data
        place = self.generated[targets]
        if self.spread is not None:
            scale = np.float32(abs((window.high - window.low) * self.stack.intensity.slope))
            self.spread[:, place] = samples.std(axis=0, ddof=1) * scale
        self.data[:, place] = _stored(samples.mean(axis=0), window, stored)

    def volume(self) -> Volume:
        """The volume, when all targets have been put."""
        return Volume(
            data=self.data,
            affine=self.dense.affine,
            positions=self.dense.positions,
            acquired=self.dense.acquired,
            frame_times=self.stack.frame_times,
            intensity=self.stack.intensity,
            rank=self.stack.rank,
            uncertainty=self.spread,
        )


def _shown(data: NDArray[np.generic], window: IntensityWindow) -> NDArray[np.float32]:
    """Stored units to window units, in double precision until they are of the order of 1.

    In single precision, wide integers on a large offset and tiny floats would lose their contrast.
    """
    scaled = data.astype(np.float64)
    scaled -= window.low
    scaled /= window.high - window.low
    return window.darken(IntensityWindow(0.0, 1.0).normalise(scaled), data)


def _stored(
    images: NDArray[np.float32], window: IntensityWindow, like: NDArray[np.generic]
) -> NDArray[np.generic]:
    """Window units in the stored dtype, within the range that the stack itself has."""
    values = images.astype(np.float64)  # in place from here on: this is a whole dense frame
    values *= window.high - window.low
    values += window.low
    np.clip(values, *_bounds(like), out=values)
    if np.issubdtype(like.dtype, np.integer):
        np.rint(values, out=values)
    # Doubles cannot hold every 64-bit integer: the cast can leave the range by rounding.
    return values.astype(like.dtype).clip(like.min(), like.max())


def _bounds(like: NDArray[np.generic]) -> tuple[float, float]:
    """Smallest and largest value, as doubles that are not outside of them.

    The nearest double to a 64-bit integer can lie beyond it, where the cast back wraps round.
    """
    low, high = like.min(), like.max()
    least, most = float(low), float(high)
    if least < low.item():
        least = float(np.nextafter(least, np.inf))
    if most > high.item():
        most = float(np.nextafter(most, -np.inf))
    return least, most
