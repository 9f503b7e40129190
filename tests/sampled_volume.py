"""Volumes of several samples, without networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from calid.inference.densify import fill, plan
from calid.stack import SliceStack, Volume


def sampled_volume(
    stack: SliceStack, method: Callable[..., np.ndarray], factor: int, uncertainty: bool = True
) -> Volume:
    """Fill a stack by what answers a frame with samples ``(samples, targets, height, width)``."""

    def film(images: np.ndarray, *asked: Any) -> Iterator[tuple[slice, np.ndarray]]:
        drawn = np.stack([method(frame, *asked) for frame in images], axis=1)
        yield slice(0, drawn.shape[2]), drawn

    return fill(stack, film, plan(stack, factor), uncertainty)
