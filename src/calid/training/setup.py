"""What trainings need before the first step: films split by subject, synthetic hearts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from calid.data.bank import (
    LEVELS,
    LabelledStack,
    TrainingFilm,
    load_bank,
    load_labelled,
    split_subjects,
    to_film,
)
from calid.data.phantom import FIRST_HELD_OUT, HeartPhantom
from calid.errors import CalidError, CalidWarning, DataError, UsageError
from calid.io.labels import LabelMap
from calid.stack import SliceStack

__all__ = ["gather_films", "gather_labelled", "labelled_phantoms"]

Example = TypeVar("Example", TrainingFilm, LabelledStack)

GAP = 10.0
"""Of synthetic stacks, mm."""

MOST_WORKERS = 16
"""Processes that make synthetic hearts; each takes about half a gigabyte of memory."""


def gather_films(
    data: Sequence[Path],
    validation: Sequence[Path],
    phantoms: int,
    cache: Path,
    workers: int = 1,
) -> tuple[list[TrainingFilm], list[TrainingFilm]]:
    """Training and held-out films in pixels of their own, never of the same subject.

    Parameters
    ----------
    data, validation
        Folders. Without validation folders a tenth of the subjects is held out.
    phantoms
        Number of synthetic hearts, added to the training films.
    cache
        Folder for the uint8 copies.
    workers
        Processes that make synthetic hearts.

    Raises
    ------
    DataError
        If nothing is left on either side.
    UsageError
        If more synthetic hearts are asked for than there are for training.
    """

    def warn(path: Path, error: CalidError) -> None:
        warnings.warn(f"left out: {error}", CalidWarning, stacklevel=2)

    films = load_bank(
        data,
        cache / "train.safetensors",
        extra=phantom_films(phantoms, workers),
        extra_key=f"phantoms={phantoms}",
        on_skip=warn,
        own_pixels=True,
    )
    held_out: list[TrainingFilm] = []
    if validation:
        held_out = load_bank(
            validation, cache / "validation.safetensors", on_skip=warn, own_pixels=True
        )
    films, held_out = _split(films, held_out, validation)
    if not films or not held_out:
        raise DataError(
            data[0], "Too few subjects to train and validate on.", "Give `validation` folders."
        )
    return films, held_out


def gather_labelled(
    data: Sequence[Path],
    validation: Sequence[Path],
    phantoms: int,
    label_map: LabelMap | None = None,
    workers: int = 1,
) -> tuple[list[LabelledStack], list[LabelledStack]]:
    """Training and held-out stacks with labels; parameters as in `gather_films`.

    ``label_map`` is that of `calid.io.labels.parse_label_map`.

    Raises
    ------
    DataError
        If a folder has no labels, or a subject is on both sides.
    """
    train = [stack for folder in data for stack in load_labelled(folder, label_map)]
    held_out = [stack for folder in validation for stack in load_labelled(folder, label_map)]
    train, held_out = _split(train, held_out, validation)
    return [*train, *labelled_phantoms(phantoms, workers)], held_out


def _split(
    train: Sequence[Example], held_out: Sequence[Example], validation: Sequence[Path]
) -> tuple[list[Example], list[Example]]:
    """Check that no subject is on both sides; without validation folders, hold out a tenth."""
    if not validation:
        names = split_subjects(x.subject for x in train)
        held_out = [x for x in train if x.subject in names]
        return [x for x in train if x.subject not in names], held_out
    shared = {x.subject for x in train} & {x.subject for x in held_out}
    if shared:
        raise DataError(
            validation[0],
            f"{len(shared)} subjects are also in the training folders, e.g. {min(shared)}.",
            "Split by subject.",
        )
    return list(train), list(held_out)


def phantom_films(count: int, workers: int = 1) -> Iterator[TrainingFilm]:
    """Stacks of synthetic hearts with slices 2.5 mm apart, so that many positions have a truth.

    Each heart has one phase, different from the others': many hearts at one phase teach more
    anatomy than few hearts at many phases.

    Parameters
    ----------
    count
        Number of hearts.
    workers
        Processes that make them; 1 is this process. The films do not depend on it.
    """
    yield from _hearts(_film, count, workers)


def labelled_phantoms(count: int, workers: int = 1) -> list[LabelledStack]:
    """Thick-slice stacks of synthetic hearts with their true labels.

    They reach beyond the valve and the apex: a network that saw a ventricle in every slice would
    find one everywhere. Each heart is at another phase and cut at other levels; parameters as in
    `phantom_films`.
    """
    return list(_hearts(_labelled, count, workers))


def _hearts(make: Callable[[int], Example], count: int, workers: int) -> Iterator[Example]:
    """What ``make`` makes of the first seeds, in their order."""
    if count > FIRST_HELD_OUT:
        raise UsageError(
            "`phantoms`",
            f"Synthetic hearts from the {FIRST_HELD_OUT}th on are kept for evaluation.",
            f"Give at most {FIRST_HELD_OUT}.",
        )
    workers = min(workers, count, MOST_WORKERS)
    if workers < 2:
        yield from map(make, range(count))
        return
    # Spawn, not fork: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin_worker) as pool:
        yield from pool.map(make, range(count))


def _begin_worker() -> None:
    """Compute in one thread, leave Ctrl-C to the parent, and end when the parent does."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _phase(seed: int) -> float:
    return 0.37 * seed % 1.0


def _film(seed: int) -> TrainingFilm:
    stack = HeartPhantom(seed).acquire(gap=GAP / 4, phases=(_phase(seed),), noise=0.01)
    return to_film(stack, f"phantom{seed}")


def _labelled(seed: int) -> LabelledStack:
    phantom, phase, first = HeartPhantom(seed), _phase(seed), -GAP * (1 + 0.61 * seed % 1.0)
    slices = int((phantom.apex - first) / GAP) + 2
    stack = phantom.acquire(gap=GAP, slices=slices, start=first, phases=(phase,))
    name = f"phantom{seed}"
    images = to_film(stack, name).frames[0].astype(np.float32) / LEVELS
    return LabelledStack(name, name, images, _true_labels(phantom, stack, phase))


def _true_labels(phantom: HeartPhantom, stack: SliceStack, phase: float) -> NDArray[np.uint8]:
    """Tissue at the centre of every pixel of a stack of the networks' spacing."""
    height, width = stack.shape[2:]
    # World axes point left and back (NIfTI's RAS+ grid), the phantom's x and y against them.
    step, origin = np.diag(stack.affine), stack.affine[:, 3]
    x = -(origin[0] + step[0] * np.arange(width))
    y = -(origin[1] + step[1] * np.arange(height))
    z = origin[2] + stack.positions
    return phantom.label(x[None, None], y[None, :, None], z[:, None, None], phase)
