"""Training tuples of stage 2: a hidden slice and its neighbours, registered and encoded once.

While an interpolator learns, neither the registration nor the autoencoder changes. Both are applied
beforehand, to many random crops and contrasts of each film; the results are kept on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Generator, Tensor

from calid.data.augment import augment_intensity, crop, random_crop, seeded
from calid.data.bank import TrainingFilm, window_units
from calid.errors import DataError
from calid.io.atomic import atomic
from calid.models.interpolator import Neighbours, gate_at
from calid.models.motion import ONE_FRAME, Frames, register

__all__ = [
    "NARROW",
    "TupleConfig",
    "Tuples",
    "build_films",
    "build_tuples",
    "film_tuples",
    "is_film",
    "size_on_disk",
    "validation_tuples",
]

VERSION = 1
"""Of the format of a cache; one of another version is refused."""

GAPS = (6.0, 42.0)
"""Width in mm of the gaps that are opened."""

NARROW = (7.0, 13.0)
"""Width in mm of gaps in a clinical exam; extra tuples with such gaps are drawn."""

TYPICAL = 18.0
"""Gaps near this width in mm, that of the benchmark, are drawn most often."""

MIN_FRAMES = 6
"""Fewest frames of a film from which tau_1 learns to mix frames."""

BATCH = 32
"""Most images that the autoencoder encodes together."""

FILM_TARGETS = 4
"""Most hidden slices of a film in a draw; few, because each is hidden in every frame."""

Encode = Callable[[Tensor], Tensor]
"""Images ``(batch, 1, height, width)`` to latents ``(batch, channels, height/4, width/4)``."""


@dataclass(frozen=True)
class TupleConfig:
    """How tuples are drawn.

    Parameters
    ----------
    draws
        Passes over all films, each with other crops, contrasts and gaps.
    size
        Side of the crops in pixels, a multiple of 16.
    narrow
        Share of the tuples whose gap is `NARROW`.
    frames
        Most frames of a film in a draw.
    targets
        Most hidden slices of a frame in a draw.
    seed
        Of all draws.
    """

    draws: int = 16
    size: int = 96
    narrow: float = 1 / 3
    frames: int = 3
    targets: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Tuples:
    """Hidden slices with their neighbours.

    Parameters
    ----------
    latents
        Latents of all slices, float16, ``(slices, channels, h, w)``.
    moved
        Latents of the slices below and above, registered to the target: float16, ``(tuples, 2,
        channels, h, w)``.
    index
        Indices of slices: target, below, above, next below, next above; -1 where there is none.
        ``(tuples, 5)``.
    distance
        Signed mm from the target to the last four; 0 where there is none. ``(tuples, 4)``.
    frames
        Frames of the film, whose tuples are frame-major, all of frame 0 first. `ONE_FRAME` if
        the tuples are unrelated.
    """

    latents: Tensor
    moved: Tensor
    index: Tensor
    distance: Tensor
    frames: Frames = ONE_FRAME

    def __len__(self) -> int:
        return len(self.index)

    @property
    def channels(self) -> int:
        """Of the latents."""
        return self.latents.shape[1]

    @property
    def gap(self) -> Tensor:
        """Width in mm of every tuple's gap, ``(tuples,)``."""
        return self.distance[:, 1] - self.distance[:, 0]

    def batch(self, picks: Tensor, device: torch.device) -> tuple[Tensor, Neighbours]:
        """Latents of some hidden slices ``(picks, channels, h, w)``, and their neighbours."""
        index = self.index[picks]
        there = (index[:, 3:] >= 0)[..., None, None, None]
        beyond = self.latents[index[:, 3:].clamp(min=0)] * there
        target, adjacent = self.latents[index[:, 0]], self.latents[index[:, 1:3]]
        seen = (adjacent, self.distance[picks], self.moved[picks], beyond)
        truth, *rest = (x.to(device).float() for x in (target, *seen))
        return truth, Neighbours(*rest)

    def chosen(self, picks: Tensor) -> Tuples:
        """Some of the tuples, each by itself."""
        return Tuples(self.latents, self.moved[picks], self.index[picks], self.distance[picks])

    @classmethod
    def joined(cls, parts: Sequence[Tuples]) -> Tuples:
        """All tuples of several draws."""
        offsets = np.cumsum([0, *(len(p.latents) for p in parts[:-1])])
        index = [
            torch.where(p.index < 0, p.index, p.index + int(n))
            for p, n in zip(parts, offsets, strict=True)
        ]
        return cls(
            torch.cat([p.latents for p in parts]),
            torch.cat([p.moved for p in parts]),
            torch.cat(index),
            torch.cat([p.distance for p in parts]),
        )


def build_tuples(
    films: Sequence[TrainingFilm],
    encode: Encode,
    encoder: str,
    folder: Path,
    config: TupleConfig,
    on_draw: Callable[[int, bool], None] = lambda done, made: None,
) -> Tuples:
    """Read the draws that are in a folder, and make those that are not.

    Parameters
    ----------
    films
        Training films in pixels of their own.
    encode
        The autoencoder's.
    encoder
        Identifies the encoder's weights, by their hash for instance.
    folder
        One file a draw. A build that was stopped goes on with the draw it was in.
    on_draw
        Told after each draw how many are done, and whether it was made now or was there.

    Raises
    ------
    DataError
        If the folder holds draws of other weights, data or settings, or damaged ones, or if no
        film has three slices.
    OutputError
        If a file cannot be written; the draws before it stay.
    """
    usable = [f for f in films if len(f.positions) >= 3]
    if not usable:
        raise DataError(
            "training data", "Tuples need stacks of at least 3 slices.", "Add longer stacks."
        )
    key = _key(usable, encoder, config)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for draw in range(config.draws):
        path = folder / f"draw-{draw:03}.safetensors"
        tuples, made = _kept(path, key, partial(_draw, usable, encode, config, draw))
        parts.append(tuples)
        on_draw(draw + 1, made)
    return Tuples.joined(parts)


def is_film(film: TrainingFilm) -> bool:
    """Whether it has frames to mix and slices to hide."""
    return len(film.frames) >= MIN_FRAMES and len(film.positions) >= 3


def build_films(
    films: Sequence[TrainingFilm],
    encode: Encode,
    encoder: str,
    folder: Path,
    config: TupleConfig,
    on_draw: Callable[[int, bool], None] = lambda done, made: None,
) -> list[Tuples]:
    """As `build_tuples`, of whole films: one file and one list entry per film and draw.

    Parameters
    ----------
    films
        Those of `is_film`.
    """
    key = _key(films, encoder, config)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for draw in range(config.draws):
        any_made = False
        for number, film in enumerate(films):
            path = folder / f"film-{draw:03}-{number:04}.safetensors"
            generator = seeded(config.seed, draw, number, 12)
            make = partial(_of_whole_film, film, encode, config.size, generator)
            tuples, made = _kept(path, key, make)
            found.append(tuples)
            any_made |= made
        on_draw(draw + 1, any_made)
    return [film for film in found if len(film)]


def film_tuples(film: TrainingFilm, encode: Encode, size: int) -> Tuples:
    """Tuples that hide every inner slice of a film in all frames, in a plain centre crop."""
    images = window_units(film.frames)
    cut = crop(images.flatten(0, 1), size, torch.eye(2, 3), "nearest")
    options = [(i, 1, 1) for i in range(1, images.shape[1] - 1)]
    return _film(
        cut.unflatten(0, images.shape[:2]), Frames.of(film.frames), film.positions, options, encode
    )


def size_on_disk(films: Sequence[TrainingFilm], channels: int, config: TupleConfig) -> float:
    """Bytes that the tuples of all draws take at most, for latents of so many channels."""
    frames = [(min(len(f.frames), config.frames), len(f.positions)) for f in films]
    slices = sum(count * length for count, length in frames)
    tuples = sum(count * min(length - 2, config.targets) for count, length in frames if length > 2)
    latent = 2 * channels * (config.size // 4) ** 2
    return config.draws * latent * (slices + 2 * tuples) / (1 - config.narrow)


def validation_tuples(films: Sequence[TrainingFilm], encode: Encode, size: int) -> Tuples:
    """Tuples that hide every inner slice of the first frame, in plain centre crops."""
    parts = []
    for film in films:
        images = crop(window_units(film.frames[0]), size, torch.eye(2, 3), "nearest")
        options = [(i, 1, 1) for i in range(1, len(images) - 1)]
        if options:
            parts.append(_tuples(images, film.positions, options, encode))
    if not parts:
        raise DataError(
            "validation data", "Tuples need stacks of at least 3 slices.", "Add longer stacks."
        )
    return Tuples.joined(parts)


def _draw(films: Sequence[TrainingFilm], encode: Encode, config: TupleConfig, draw: int) -> Tuples:
    """One pass over all films, then films with narrow gaps until there are enough of these."""
    generator = seeded(config.seed, draw, 8)
    parts = [t for film in films for t in _of_film(film, GAPS, encode, config, generator)]
    narrow = [f for f in films if len(_options(f.positions, NARROW))]
    wanted = sum(len(t) for t in parts) * config.narrow / (1 - config.narrow)
    # Some of the first pass are narrow already.
    found = sum(int((t.gap <= NARROW[1]).sum()) for t in parts)
    while narrow and found < wanted:
        film = narrow[int(torch.randint(len(narrow), (), generator=generator))]
        more = list(_of_film(film, NARROW, encode, config, generator))
        parts += more
        found += sum(len(part) for part in more)
    return Tuples.joined(parts)


def _of_film(
    film: TrainingFilm,
    gaps: tuple[float, float],
    encode: Encode,
    config: TupleConfig,
    generator: Generator,
) -> Iterator[Tuples]:
    count = min(len(film.frames), config.frames)
    for frame in torch.randperm(len(film.frames), generator=generator)[:count].tolist():
        images = random_crop(window_units(film.frames[frame]), config.size, generator)
        images, positions = augment_intensity(images, generator), film.positions
        if int(torch.randint(2, (), generator=generator)):
            images, positions = images.flip(0), positions[-1] - positions[::-1]
        options = _choose(positions, gaps, config.targets, generator)
        if options:
            yield _tuples(images, positions, options, encode)


def _of_whole_film(film: TrainingFilm, encode: Encode, size: int, generator: Generator) -> Tuples:
    """All frames in one crop and one contrast, a few targets hidden in each."""
    images = window_units(film.frames)
    together = random_crop(images.flatten(0, 1), size, generator)
    images = augment_intensity(together, generator).unflatten(0, images.shape[:2])
    positions = film.positions
    if int(torch.randint(2, (), generator=generator)):
        images, positions = images.flip(1), positions[-1] - positions[::-1]
    narrow = len(_options(positions, NARROW)) and int(torch.randint(2, (), generator=generator))
    gaps = NARROW if narrow else GAPS
    options = _choose(positions, gaps, FILM_TARGETS, generator)
    return _film(images, Frames.of(film.frames), positions, options, encode)


def _options(positions: NDArray[np.float64], gaps: tuple[float, float]) -> NDArray[np.int64]:
    """All ``(target, slices down, slices up)`` whose gap has an allowed width, ``(options, 3)``."""
    count = len(positions)
    below, target, above = np.meshgrid(*3 * [np.arange(count)], indexing="ij")
    width = positions[above] - positions[below]
    fits = (below < target) & (target < above) & (gaps[0] <= width) & (width <= gaps[1])
    below, target, above = below[fits], target[fits], above[fits]
    return np.stack([target, target - below, above - target], 1)


def _choose(
    positions: NDArray[np.float64], gaps: tuple[float, float], most: int, generator: Generator
) -> list[tuple[int, int, int]]:
    """At most one option for each target, drawn with weights that favour gaps near `TYPICAL`."""
    options = _options(positions, gaps)
    if not len(options):
        return []
    target, down, up = options.T
    width = positions[target + up] - positions[target - down]
    weight = torch.from_numpy(np.exp(-1.5 * np.abs(np.log(width / TYPICAL))))
    # Gumbel's trick: the largest of log weight + noise is a draw by weight.
    noise = -torch.rand(len(weight), generator=generator).clamp(1e-9, 1 - 1e-9).log().neg().log()
    order = (weight.log() + noise).argsort(descending=True).tolist()
    chosen: dict[int, tuple[int, int, int]] = {}
    for row in order:
        chosen.setdefault(int(target[row]), (int(target[row]), int(down[row]), int(up[row])))
    drawn = list(chosen.values())
    picks = torch.randperm(len(drawn), generator=generator)[:most].tolist()
    return sorted(drawn[i] for i in picks)


def _tuples(
    images: Tensor,
    positions: NDArray[np.float64],
    options: Sequence[tuple[int, int, int]],
    encode: Encode,
) -> Tuples:
    """Tuples of one frame ``(slices, size, size)``."""
    return _film(images[None], ONE_FRAME, positions, options, encode)


@torch.no_grad()
def _film(
    images: Tensor,
    frames: Frames,
    positions: NDArray[np.float64],
    options: Sequence[tuple[int, int, int]],
    encode: Encode,
) -> Tuples:
    """Tuples of a film ``(frames, slices, size, size)``, frame-major."""
    slices = images.shape[1]
    target, down, up = torch.tensor(options, dtype=torch.long).view(-1, 3).unbind(1)
    below, above = target - down, target + up
    # The next slices out are as far from below and above as those are from each other.
    next_below, next_above = below - (down + up), above + (down + up)
    next_above = torch.where(next_above < slices, next_above, -1)
    index = torch.stack([target, below, above, next_below.clamp(min=-1), next_above], 1)
    place = torch.from_numpy(np.ascontiguousarray(positions))
    distance = (place[index[:, 1:].clamp(min=0)] - place[target, None]).float()
    distance = (distance * (index[:, 1:] >= 0)).repeat(frames.count, 1)
    offset = torch.arange(frames.count)[:, None, None] * slices
    index = torch.where(index < 0, index, index + offset).flatten(0, 1)
    pages = images.flatten(0, 1)
    latents = _encoded(pages, encode)
    moved = register(pages[index[:, 1:3]], distance[:, :2], gate_at(distance), frames)
    carried = _encoded(moved.flatten(0, 1), encode).unflatten(0, (-1, 2))
    return Tuples(latents.half().cpu(), carried.half().cpu(), index, distance, frames)


def _encoded(images: Tensor, encode: Encode) -> Tensor:
    """Latents of images ``(images, size, size)``, encoded in parts."""
    return torch.cat([encode(part[:, None]) for part in images.split(BATCH)])


def _key(films: Sequence[TrainingFilm], encoder: str, config: TupleConfig) -> str:
    """What a draw depends on, apart from its number."""
    digest = hashlib.sha256(
        f"{VERSION} {encoder} {config}".replace(f"draws={config.draws}", "").encode()
    )
    for film in films:
        digest.update(film.subject.encode())
        digest.update(film.positions.tobytes())
        digest.update(np.ascontiguousarray(film.frames).data)
    return digest.hexdigest()


def _kept(path: Path, key: str, make: Callable[[], Tuples]) -> tuple[Tuples, bool]:
    """Tuples of a file, and whether they had to be made for it."""
    missing = not path.exists()
    if missing:
        _write(path, make(), key)
    return _read(path, key), missing


TENSORS = ("latents", "moved", "index", "distance")
"""Of a cache file."""


def _write(path: Path, tuples: Tuples, key: str) -> None:
    tensors = {name: getattr(tuples, name).contiguous() for name in TENSORS}
    count, periodic = tuples.frames.count, tuples.frames.periodic
    meta = {"key": key, "frames": str(count), "periodic": str(int(periodic))}
    with atomic(path) as file:
        file.write(save(tensors, meta))


def _read(path: Path, key: str) -> Tuples:
    try:
        with safe_open(path, "pt") as store:
            meta = store.metadata() or {}
            if meta.get("key") != key:
                raise DataError(
                    path,
                    "These tuples were made of other data or weights, or in another way.",
                    "Remove the folder, or give another one.",
                )
            tensors = {name: store.get_tensor(name) for name in TENSORS}
            count, periodic = (int(meta.get(name, 1)) for name in ("frames", "periodic"))
            return Tuples(**tensors, frames=Frames(count, bool(periodic)))
    except (SafetensorError, OSError) as error:
        raise DataError(
            path, f"The tuples cannot be read ({error}).", "Remove the file; it is made again."
        ) from error
