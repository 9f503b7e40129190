"""Which frames of a film see each other, and how answers are blended where the film is long."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calid.models.context import Acquired
from calid.models.temporal import STILL, Frames

__all__ = ["FEWEST_FRAMES", "TOGETHER", "Window", "windows"]

FEWEST_FRAMES = 4
"""Shorter films are no heartbeat (diastole and systole, say): their frames stand alone."""

TOGETHER = 32
"""Most frames that see each other: memory and time of attention grow with their number."""


@dataclass(frozen=True)
class Window:
    """Consecutive frames of a film that go through the networks together.

    Parameters
    ----------
    index
        Shape ``(frames,)``; the film's last frame is followed by its first.
    frames
        The same, as networks are told.
    weight
        Shape ``(frames,)``, float32, of their answers; over all windows of a frame it sums to 1.
    """

    index: NDArray[np.int64]
    frames: Frames
    weight: NDArray[np.float32]

    def of(self, film: Acquired, slices: int, near: slice) -> Acquired:
        """Some neighbouring slices in these frames of a film that has ``slices`` slices."""

        def take(x: Tensor) -> Tensor:
            whole = x.unflatten(0, (-1, slices))[:, near]
            # One frame alone stays a view.
            chosen = whole if len(whole) == 1 else whole[torch.from_numpy(self.index)]
            flat: Tensor = chosen.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            return flat

        images, latents = take(film.images), take(film.latents)
        return replace(film, images=images, latents=latents, frames=self.frames)


def windows(cycle: int, together: int) -> list[Window]:
    """Cover a heartbeat.

    Parameters
    ----------
    cycle
        Frames of the film.
    together
        Most frames of a window. A film that is no longer is one window. Else every frame lies
        in two or more, at the ends of none of them alone, and there is no seam where the film
        begins; with 1, every frame stands alone.
    """
    if together == 1:
        one = np.ones(1, np.float32)
        return [Window(np.array([frame]), STILL, one) for frame in range(cycle)]
    if cycle <= together:
        return [Window(np.arange(cycle), Frames(cycle, cycle), np.ones(cycle, np.float32))]
    count = -(-2 * cycle // together)
    starts = np.arange(count) * cycle // count
    index = (starts[:, None] + np.arange(together)) % cycle
    middle = (together - 1) / 2
    weight = np.tile(1 - np.abs(np.arange(together) - middle) / (middle + 1), (count, 1))
    total = np.bincount(index.ravel(), weight.ravel(), minlength=cycle)
    weight /= total[index]
    frames = Frames(together, cycle)
    return [Window(i, frames, w.astype(np.float32)) for i, w in zip(index, weight, strict=True)]
