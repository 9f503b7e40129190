"""Random training films: a pure function of seed and step, so that a resumed run agrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from calid.data.augment import augment_intensity, crop, random_pose
from calid.data.bank import Film, window_units
from calid.data.sampling import seeded

__all__ = ["FilmSampler", "TrainingFilm", "centre_film"]

LEAST = 6
"""Fewest frames that a heartbeat is thinned out to."""

THINNED, PARTIAL = 0.25, 0.2
"""Shares of the steps with every second frame where that leaves a whole cycle, and with a part
of the cycle, as in a window of a long film."""


@dataclass(frozen=True)
class TrainingFilm:
    """Consecutive frames of a heartbeat.

    Parameters
    ----------
    images
        Shape ``(frames, slices, size, size)``, window units.
    positions
        Shape ``(slices,)``, mm.
    cycle
        Frames of the whole heartbeat.
    """

    images: Tensor
    positions: NDArray[np.float64]
    cycle: int


def centre_film(film: Film, size: int) -> TrainingFilm:
    """The centre of a film as it is, for validation, at most ``size`` pixels wide."""
    size = _side(film, size)
    images = window_units(film.frames).flatten(0, 1)
    images = crop(images, size, torch.eye(2, 3)).unflatten(0, film.frames.shape[:2])
    return TrainingFilm(images, film.positions, len(images))


class FilmSampler:
    """Draws one augmented film a step and process: one pose and one contrast for all frames.

    Time keeps its direction. Where the film begins is of no account to networks that take it
    for periodic.

    Parameters
    ----------
    films
        Training films.
    size
        Side of the square crop in pixels; of smaller films, the largest multiple of 16.
    frames
        Most frames of a step; longer films give a part of their cycle.
    seed
        Of the whole run.
    most_slices
        Longer stacks give a random run of this many neighbouring slices.
    """

    def __init__(
        self, films: Sequence[Film], size: int, frames: int, seed: int, most_slices: int = 9
    ) -> None:
        self.films, self.size, self.frames, self.seed = films, size, frames, seed
        self.most_slices = most_slices

    def draw(self, step: int, rank: int) -> TrainingFilm:
        """The film of this step and process."""
        generator = seeded(self.seed, step, 6, rank)
        film = self.films[_below(len(self.films), generator)]
        index, cycle = self._frames(len(film.frames), generator)
        first = _below(max(0, len(film.positions) - self.most_slices) + 1, generator)
        run = slice(first, first + self.most_slices)
        images = window_units(film.frames[index, run])
        shape, positions = images.shape[:2], film.positions[run]
        size = _side(film, self.size)
        spare = max(0.0, (min(images.shape[-2:]) - size) / 2)
        pose = random_pose(generator, shift=spare + size / 16)
        images = augment_intensity(crop(images.flatten(0, 1), size, pose), generator)
        images = images.unflatten(0, shape)
        if float(torch.rand((), generator=generator)) < 0.5:
            images, positions = images.flip(1), positions[-1] - positions[::-1]
        return TrainingFilm(images, positions, cycle)

    def _frames(self, count: int, generator: Generator) -> tuple[NDArray[np.int64], int]:
        """Which frames of a film, and of how many their cycle then is."""
        thin, part = torch.rand(2, generator=generator).tolist()
        stride = 2 if thin < THINNED and count % 2 == 0 and count >= 2 * LEAST else 1
        offset, cycle = _below(stride, generator), count // stride
        taken = min(cycle, self.frames)
        if part < PARTIAL and taken > LEAST:
            taken = LEAST + _below(taken - LEAST, generator)
        start = _below(cycle, generator) if taken < cycle else 0
        return offset + stride * ((start + np.arange(taken)) % cycle), cycle


def _side(film: Film, size: int) -> int:
    """Of the crop: ``size``, or the largest multiple of 16 that fits."""
    return min(size, int(min(film.frames.shape[-2:])) // 16 * 16)


def _below(count: int, generator: Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
