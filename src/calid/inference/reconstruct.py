"""From a stack to a volume: the only place that knows both and a method to go between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calid.baselines.signature import Method
from calid.data.intensity import IntensityWindow
from calid.errors import UsageError
from calid.geometry.affine import dense_affine
from calid.stack import SliceStack, Volume

__all__ = [
    "DensePlan",
    "SampledMethod",
    "check_density",
    "choose_factor",
    "choose_samples",
    "densify",
    "plan",
]


SampledMethod = Method
"""A `Method` with one more axis in front of its answer: ``(samples, targets, height, width)``."""


@dataclass(frozen=True)
class DensePlan:
    """Where the slices of a dense volume lie and which of them are the scanner's.

    Parameters
    ----------
    positions
        Shape ``(dense slices,)``, mm.
    acquired
        Shape ``(dense slices,)``.
    """

    positions: NDArray[np.float64]
    acquired: NDArray[np.bool_]


def choose_factor(stack: SliceStack, factor: int | None, spacing: float | None) -> int:
    """Number of steps into which every gap is cut.

    Parameters
    ----------
    factor
        Given outright.
    spacing
        Wanted through-plane spacing in mm. Acquired slices stay on the grid, so the factor
        whose spacing comes nearest in ratio is taken. With neither, the in-plane spacing is
        wanted: isotropic voxels.

    Raises
    ------
    UsageError
        If both are given, or one is not positive.
    """
    check_density(factor, spacing)
    if factor is not None:
        return factor
    wanted = float(np.mean(stack.pixel_spacing)) if spacing is None else spacing
    ratio = float(stack.gaps.mean()) / wanted
    below = max(1, int(np.floor(ratio)))
    return below if ratio / below < (below + 1) / ratio else below + 1


def check_density(factor: int | None, spacing: float | None) -> None:
    """Refuse what `choose_factor` cannot follow, whatever the stack.

    Raises
    ------
    UsageError
        If both are given, or one is not positive.
    """
    if factor is not None and spacing is not None:
        raise UsageError(
            "--factor and --spacing", "They exclude each other.", "Give one of the two."
        )
    if factor is not None and factor < 1:
        raise UsageError("--factor", f"{factor} is not a positive number.", "Use 1 or more.")
    if spacing is not None and not (np.isfinite(spacing) and spacing > 0):
        raise UsageError("--spacing", f"{spacing} mm is not a spacing.", "Give a positive number.")


def choose_samples(samples: int | None, preset: str, uncertainty: bool) -> int:
    """Number of samples to draw.

    Parameters
    ----------
    samples
        Given outright; 0 is the conditional mean.
    preset
        ``default`` gives its mean if nothing is said: nearer to hidden slices than an average
        of samples, and one pass. ``paper`` has no mean and draws one sample.
    uncertainty
        Whether a standard deviation is wanted: 8 samples then, if nothing is said.

    Raises
    ------
    UsageError
        If a standard deviation is wanted of fewer than 2 samples.
    """
    if samples is None:
        return 8 if uncertainty else int(preset != "default")
    if uncertainty and samples < 2:
        raise UsageError(
            "--uncertainty",
            f"A standard deviation needs at least 2 samples, not {samples}.",
            "Draw more, 8 for instance.",
        )
    return samples


def plan(positions: NDArray[np.float64], factor: int) -> DensePlan:
    """Cut every gap into ``factor`` equal steps: ``(slices - 1) * factor + 1`` slices."""
    share = np.arange(factor) / factor
    between = positions[:-1, None] + np.diff(positions)[:, None] * share
    dense = np.append(between.ravel(), positions[-1])
    acquired = np.arange(len(dense)) % factor == 0
    return DensePlan(dense, acquired)


def densify(
    stack: SliceStack,
    method: SampledMethod,
    factor: int,
    uncertainty: bool = False,
    on_frame: Callable[[int], None] = lambda frame: None,
) -> Volume:
    """Fill every gap of every frame.

    Parameters
    ----------
    method
        Gives the slices between; samples are averaged.
    factor
        Of `choose_factor`; 1 returns the stack itself as a volume.
    uncertainty
        Keep the standard deviation over samples, at least 2.
    on_frame
        Called with the number of frames done.

    Returns
    -------
    Volume
        Acquired slices, at multiples of ``factor``, are those of the stack bit for bit.
        Generated ones have its dtype and stay within the range of its values.
    """
    dense = plan(stack.positions, factor)
    frames, _, height, width = stack.shape
    data = np.empty((frames, len(dense.positions), height, width), stack.data.dtype)
    data[:, dense.acquired] = stack.data
    spread = np.zeros(data.shape, np.float32) if uncertainty else None
    window = IntensityWindow.of(stack.data)
    targets = dense.positions[~dense.acquired]
    for frame in range(frames if len(targets) else 0):
        images = window.normalise(stack.data[frame])
        samples = method(images, stack.positions, targets, stack.pixel_spacing)
        if spread is not None:
            scale = (window.high - window.low) * abs(stack.intensity.slope)
            spread[frame, ~dense.acquired] = samples.std(axis=0, ddof=1) * scale
        data[frame, ~dense.acquired] = _stored(window.restore(samples.mean(axis=0)), stack.data)
        on_frame(frame + 1)
    return Volume(
        data=data,
        affine=dense_affine(stack.affine, factor),
        positions=dense.positions,
        acquired=dense.acquired,
        frame_times=stack.frame_times,
        intensity=stack.intensity,
        rank=stack.rank,
        uncertainty=spread,
    )


def _stored(values: NDArray[np.float32], like: NDArray[np.generic]) -> NDArray[np.generic]:
    """Values in the stored dtype, within the range that the stack itself has."""
    values = np.clip(values, like.min(), like.max())
    if np.issubdtype(like.dtype, np.integer):
        values = np.rint(values)
    return values.astype(like.dtype)
