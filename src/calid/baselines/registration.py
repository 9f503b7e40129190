"""Interpolation by registration: neighbours are moved towards the target, then averaged.

Anatomy shifts between slices 10 mm apart. The average of neighbours that were moved into place
has less ghosting than that of neighbours as they are. Nothing here is learned.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from calid.errors import UsageError
from calid.geometry.pixels import PixelGrid
from calid.models.interpolator import Neighbours
from calid.models.motion import register

__all__ = ["blend", "registration"]

RADIUS = 18.0
"""Half side in mm of the window in which the flow is constant.

Tuned with `WARPS` by PSNR on hidden slices of ACDC's validation patients, one or two choices at
a time. Tried: 15, 18, 22.5 and 30 mm; 3, 5, 10 and 20 warps; box and Gaussian windows; median
filtering of the flow; intensities and their square roots; each slice moved by its own flow, by
the other's, and both by a common one; linear and cubic in-plane sampling.
"""

WARPS = 5
"""Linearisations at each level of the flow's pyramid; more give worse slices in between."""


def registration(
    images: NDArray[np.float32],
    positions: NDArray[np.float64],
    targets: NDArray[np.float64],
    spacing: tuple[float, float],
) -> NDArray[np.float32]:
    """See `calid.baselines.rules.Method`: optical flow, the strongest classical method.

    Flow is by iterative Lucas-Kanade (Le Besnerais and Champagnat, ICIP 2005), estimated in both
    directions of a gap, once for all its targets. At the share alpha of the gap, the motion is
    ``(1 - alpha) * there - alpha * back``. The lower slice is moved by alpha times this motion,
    the upper one by the rest, and both are averaged with weights by distance. As alpha tends to
    0 or 1 the answer tends to the slice.

    Images need two slices or more, and 2 pixels a side. The window of the flow is square in
    pixels; its side in mm is that of `RADIUS` at the geometric mean of both spacings. Answers
    stay within the range of the images.

    Raises
    ------
    UsageError
        If scikit-image is not installed.
    """
    try:
        from skimage.registration import optical_flow_ilk  # only the benchmark needs it
    except ImportError as error:
        raise UsageError(
            "registration", "It needs scikit-image.", "Install it: pip install calid[benchmark]"
        ) from error
    flow: Callable[..., NDArray[np.float32]] = optical_flow_ilk
    radius = max(1, round(RADIUS / float(np.sqrt(spacing[0] * spacing[1]))))
    out = np.empty((len(targets), *images.shape[1:]), np.float32)
    gaps = np.clip(np.searchsorted(positions, targets), 1, len(positions) - 1)
    for gap in np.unique(gaps):
        low, high = images[gap - 1], images[gap]
        # The square root lifts myocardium and lung against the bright blood pool.
        first, second = np.sqrt(low.clip(min=0)), np.sqrt(high.clip(min=0))
        there, back = (
            flow(a, b, radius=radius, num_warp=WARPS) for a, b in ((first, second), (second, first))
        )
        for number in np.flatnonzero(gaps == gap):
            alpha = (targets[number] - positions[gap - 1]) / (positions[gap] - positions[gap - 1])
            motion = (1 - alpha) * there - alpha * back
            lower, upper = _moved(low, -alpha * motion), _moved(high, (1 - alpha) * motion)
            out[number] = (1 - alpha) * lower + alpha * upper
    return out


def _moved(image: NDArray[np.float32], displacement: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sample ``(height, width)`` at each pixel plus its ``(2, height, width)`` displacement."""
    places = np.indices(image.shape) + displacement
    return np.asarray(map_coordinates(image, places, order=1, mode="nearest"), np.float32)


def blend(
    images: NDArray[np.float32],
    positions: NDArray[np.float64],
    targets: NDArray[np.float64],
    spacing: tuple[float, float],
) -> NDArray[np.float32]:
    """See `calid.baselines.rules.Method`: registered neighbours, weighted by distance.

    This is what the default preset starts from, see `calid.models.motion`; no network runs.
    """
    grid = PixelGrid.of(images.shape, spacing)
    acquired = grid.enter(torch.from_numpy(images))
    out = []
    for target, upper in zip(targets, np.searchsorted(positions, targets), strict=True):
        pair = acquired[None, upper - 1 : upper + 1]
        apart = np.append(positions[upper - 1 : upper + 1] - target, [0.0, 0.0])
        distance = torch.from_numpy(apart).float()[None]
        known = Neighbours(pair, distance, pair, pair)
        moved = register(pair, distance[:, :2], known.gate)
        out.append(known.weighted(moved))
    answer: NDArray[np.float32] = grid.leave(torch.cat(out)).numpy()
    return answer
