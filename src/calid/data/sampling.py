"""Random training stacks: a pure function of seed and step, so that a resumed run agrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from calid.data.augment import augment_intensity, crop, random_pose
from calid.data.bank import Film, window_units

__all__ = ["StackSampler", "TrainingStack", "centre_stack", "seeded"]


def seeded(*keys: int) -> Generator:
    """CPU generator whose stream depends on all keys (seed, step, rank, purpose)."""
    state = np.random.SeedSequence(keys).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@dataclass(frozen=True)
class TrainingStack:
    """Augmented slices of one frame: ``(slices, size, size)`` in window units, and their mm."""

    images: Tensor
    positions: NDArray[np.float64]


def centre_stack(film: Film, frame: int, size: int) -> TrainingStack:
    """The centre of a frame as it is, for validation; mirrored beyond the edge."""
    images = window_units(film.frames[frame])
    return TrainingStack(crop(images, size, torch.eye(2, 3)), film.positions)


class StackSampler:
    """Draws augmented stacks of one crop size a step.

    Parameters
    ----------
    films
        Training films. Films smaller than ``size`` make batches of their own, at the
        largest multiple of 16 that fits them.
    size
        Side of the square crop in pixels.
    seed
        Of the whole run.
    small_share
        Share of the steps that use the small films, where both kinds are there.
    most_slices
        Longer stacks give a random run of this many neighbouring slices.
    """

    def __init__(
        self,
        films: Sequence[Film],
        size: int,
        seed: int,
        small_share: float = 0.25,
        most_slices: int = 14,
    ) -> None:
        self.most_slices = most_slices
        self.large = [f for f in films if min(f.frames.shape[-2:]) >= 0.9 * size]
        self.small = [f for f in films if min(f.frames.shape[-2:]) < 0.9 * size]
        self.size, self.seed = size, seed
        self.small_share = 1.0 if not self.large else small_share if self.small else 0.0

    def draw(self, step: int, rank: int, count: int) -> list[TrainingStack]:
        """``count`` stacks of equal crop size for this step and process."""
        # All ranks take the same kind of film at a step, so that none waits for another.
        use_small = float(torch.rand((), generator=seeded(self.seed, step, 1))) < self.small_share
        films = self.small if use_small else self.large
        generator = seeded(self.seed, step, 2, rank)
        picks = torch.randint(len(films), (count,), generator=generator).tolist()
        side = min(min(films[i].frames.shape[-2:]) for i in picks)
        size = min(self.size, side // 16 * 16) if use_small else self.size
        return [self._augmented(films[i], size, generator) for i in picks]

    def _augmented(self, film: Film, size: int, generator: Generator) -> TrainingStack:
        frame = int(torch.randint(len(film.frames), (), generator=generator))
        surplus = max(0, len(film.positions) - self.most_slices)
        first = int(torch.randint(surplus + 1, (), generator=generator))
        run = slice(first, first + self.most_slices)
        images = window_units(film.frames[frame, run])
        spare = max(0.0, (min(images.shape[-2:]) - size) / 2)
        images = crop(images, size, random_pose(generator, shift=spare + size / 16))
        images = augment_intensity(images, generator)
        positions = film.positions[run]
        if float(torch.rand((), generator=generator)) < 0.5:
            images, positions = images.flip(0), positions[-1] - positions[::-1]
        return TrainingStack(images, positions)
