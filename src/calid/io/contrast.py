"""Contrast of images: the range of values inside the field, and what is doubtful about them.

Padding is a constant far outside the image's range (PixelPaddingValue, the fill of a resampling);
outliers are single pixels far outside it. If they set a percentile, the heart loses its contrast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calid.stack import SliceStack

__all__ = ["ENDS", "Contrast", "contrast", "doubtful_images"]

ENDS = (0.5, 99.5)
"""Percentiles between which the contrast of an image lies."""

BELOW, ABOVE = 0.5, 4.0
"""How far an image may reach below and above its spread, as a multiple of that spread."""

SHARE = 0.0025
"""Share of all voxels from which on a constant can be padding."""

FEWEST = 1024
"""Images with fewer voxels than this are not searched for padding or outliers."""

SAMPLE, PADDINGS = 2**18, 3
"""Most voxels sampled in the search for padding, and most rounds of that search."""

LEVELS = 32
"""Fewest different values of an image; a drawing has fewer, with steps of any size."""

MOST_LABELS = 8
"""Most different values that a label map of a heart has."""


@dataclass(frozen=True)
class Contrast:
    """Range of the values in the field: percentiles `ENDS`.

    ``blank`` is the value of padding above the image, which is shown as dark as all padding, NaN
    if there is none; ``outside`` the share of voxels that are padding or outliers.
    """

    low: float
    high: float
    blank: float = float("nan")
    outside: float = 0.0


def contrast(data: NDArray[Any]) -> Contrast:
    """Percentiles of what is inside the field (any shape; rows and columns last, stored units).

    Without padding or outliers that own a percentile, they are those of all voxels.
    """
    low, high = _percentiles(data, ENDS)
    if data.size < FEWEST:
        return Contrast(low, high)
    least, most, padding = _reach(data)
    if least <= low and high <= most:
        return Contrast(low, high)
    inside = (data >= least) & (data <= most)
    outside, padded = ~inside, np.isin(data, padding)
    if data.ndim > 1:
        from scipy import ndimage  # slow to load, and few images are padded

        # Pixels beside padding are mixed with it; what else is larger than a speck is tissue.
        square = np.ones((1,) * (data.ndim - 2) + (3, 3), bool)
        beside = ndimage.binary_dilation(padded, square, iterations=2)
        inside |= ndimage.binary_opening(outside & ~beside, square)
    if inside.all() or len(np.unique(data[inside])) < LEVELS:
        return Contrast(low, high)
    low, high = _percentiles(data[inside], ENDS)
    above = [end for end in padding if end > most]
    return Contrast(low, high, max(above, default=math.nan), 1 - float(inside.mean()))


def _reach(data: NDArray[Any]) -> tuple[float, float, list[float]]:
    """Least and most that the image reaches, judged by a sample, and padding beyond them."""
    sample = data.ravel()
    if sample.size > SAMPLE:
        sample = sample[np.random.default_rng(0).integers(0, sample.size, SAMPLE)]
    rest, constants = sample, list[float]()
    for _ in range(PADDINGS):
        # Not the very ends: a single voxel can lie beyond the padding.
        ends = np.unique(np.percentile(rest, (0.05, 99.95), method="nearest"))
        found = [end for end in ends if np.count_nonzero(sample == end) > SHARE * sample.size]
        left = rest[~np.isin(rest, found)]
        if not found or not left.size:
            break
        rest, constants = left, constants + [float(end) for end in found]
    bottom, top = _percentiles(rest, (5, 95))
    least = bottom - BELOW * (top - bottom)
    most = top + ABOVE * (top - bottom)
    return least, most, [end for end in constants if not least <= end <= most]


def _percentiles(data: NDArray[Any], percent: tuple[float, ...]) -> list[float]:
    """Percentiles by linear interpolation, in double precision but without a copy in it.

    `numpy.percentile` of a film in float64 would take four times the film's memory.
    """
    place = np.asarray(percent) / 100 * (data.size - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, data.size - 1)
    ordered = np.partition(data, np.unique([below, above]), axis=None)
    low, high = ordered[below].astype(np.float64), ordered[above].astype(np.float64)
    return [float(v) for v in low + (high - low) * (place - below)]


def doubtful_images(stack: SliceStack) -> list[str]:
    """Sentences about images of one value, stacks that seem to be labels, and padding."""
    data = stack.data
    found = contrast(data)
    notes = []
    if found.outside:
        notes.append(
            f"{100 * found.outside:.2g} % of voxels are padding or outliers, far outside of all "
            f"others ({found.low:g} to {found.high:g}). The contrast is that of the others."
        )
    flat = data.min(axis=(2, 3)) == data.max(axis=(2, 3))
    in_range = data.min() >= 0 and data.max() < MOST_LABELS
    if not flat.all() and in_range and (data == np.rint(data)).all():
        notes.append(
            f"all voxels are whole numbers below {MOST_LABELS}. Are these labels, not images?"
        )
    elif flat.any() and data.min() == data.max():
        notes.append("all voxels have the same value. Is this the right input?")
    elif flat.any():
        frame, number = np.argwhere(flat)[0]
        notes.append(
            f"{int(flat.sum())} of {flat.size} images have the same value everywhere, the first "
            f"in frame {frame}, slice {number} (counted from 0). Do not trust what is generated "
            "beside them."
        )
    return [f"{stack.source}: {note}" for note in notes]
