"""What both stages need before the first step: films, split by subject."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from calid.data.bank import Film, load_bank, split_subjects, to_film
from calid.data.phantom import HeartPhantom
from calid.errors import CalidError, CalidWarning, DataError

__all__ = ["gather_films"]


def gather_films(
    data: Sequence[Path],
    validation: Sequence[Path],
    phantoms: int,
    cache: Path,
    frames: int = 1,
) -> tuple[list[Film], list[Film]]:
    """Training and held-out films, never of the same subject.

    Parameters
    ----------
    data, validation
        Folders. Without validation folders a tenth of the subjects is held out.
    phantoms
        Number of synthetic hearts, added to the training films.
    cache
        Folder for the uint8 copies.
    frames
        Of each synthetic heart.

    Raises
    ------
    DataError
        If nothing is left on either side.
    """

    def warn(path: Path, error: CalidError) -> None:
        warnings.warn(f"left out: {error}", CalidWarning, stacklevel=2)

    films = load_bank(
        data,
        cache / "train.safetensors",
        extra=phantom_films(phantoms, frames),
        extra_key=f"phantoms={phantoms}" + (f" frames={frames}" if frames > 1 else ""),
        on_skip=warn,
    )
    if validation:
        held_out = load_bank(validation, cache / "validation.safetensors", on_skip=warn)
        shared = {f.subject for f in films} & {f.subject for f in held_out}
        if shared:
            raise DataError(
                validation[0],
                f"{len(shared)} subjects are also in the training folders, e.g. {min(shared)}.",
                "Split by subject.",
            )
    else:
        names = split_subjects(f.subject for f in films)
        held_out = [f for f in films if f.subject in names]
        films = [f for f in films if f.subject not in names]
    if not films or not held_out:
        raise DataError(
            data[0], "Too few subjects to train and validate on.", "Give --validation folders."
        )
    return films, held_out


def phantom_films(count: int, frames: int = 1) -> Iterator[Film]:
    """Thick-slice films of synthetic hearts, so that many positions have a truth.

    Parameters
    ----------
    count
        How many hearts.
    frames
        Of each. Single frames lie 2.5 mm apart, at another phase in every heart: many hearts at
        one phase each teach more anatomy than few at many. Whole cycles have a quarter of the
        slices, 10 mm apart.
    """
    for seed in range(count):
        first = 0.37 * seed % 1.0
        phases = tuple((first + frame / frames) % 1.0 for frame in range(frames))
        gap = 2.5 if frames == 1 else 10.0
        stack = HeartPhantom(seed).acquire(gap=gap, phases=phases, noise=0.01)
        yield to_film(stack, f"phantom{seed}")
