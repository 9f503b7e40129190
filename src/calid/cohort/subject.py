"""The unit of a cohort, what its reconstruction gives, and what became of it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from calid.cohort.names import ENDING
from calid.errors import CalidError, CalidWarning

__all__ = ["Engine", "Job", "Made", "Outcome", "Setup", "Subject", "attempt", "lost"]


@dataclass(frozen=True, order=True)
class Subject:
    """One stack to reconstruct: a subject, or one session or run of it.

    Parameters
    ----------
    target
        Where the reconstruction lies below the root of the derivatives; unique in the cohort.
    source
        NIfTI file, or whatever else `calid.io.read` takes.
    """

    target: PurePosixPath
    source: Path

    @property
    def name(self) -> str:
        """The target without its ending."""
        return str(self.target).removesuffix(ENDING)


@dataclass(frozen=True)
class Made:
    """What a reconstruction says of its output.

    Parameters
    ----------
    slices
        Of the dense volume.
    sha256
        Of the file.
    """

    slices: int
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """What became of a subject.

    Parameters
    ----------
    subject
        Its name.
    status
        ``done``; ``kept``, a valid output of an earlier run; ``failed`` with an error of its
        own; ``lost`` with the workers that died over it.
    exit_code
        As `calid reconstruct` would end; 0 if all is well.
    rule, remedy
        Of the error.
    seconds
        From reading to writing; 0 if nothing was made.
    slices, sha256
        As `Made`.
    attempts
        How often it was begun.
    notes
        Warnings, joined by ``|``.
    """

    subject: str
    status: Literal["done", "kept", "failed", "lost"]
    exit_code: int = 0
    rule: str = ""
    remedy: str = ""
    seconds: float = 0.0
    slices: int = 0
    sha256: str = ""
    attempts: int = 1
    notes: str = ""


Job = Callable[[Subject], Made]
"""Reconstructs one subject and writes its output, complete or not at all."""

Setup = Callable[[], Job]
"""Called once in every worker, to load what all subjects share. It travels by pickle."""


class Engine(Protocol):
    """Runs subjects somewhere, several at a time."""

    def run(self, setup: Setup, subjects: Sequence[Subject]) -> Iterator[Outcome]:
        """Give one outcome a subject, in the order in which they end.

        Raises
        ------
        CalidError
            If workers cannot be set up: no subject could be done.
        """
        ...


def attempt(job: Job, subject: Subject) -> Outcome:
    """Run one subject; whatever it raises becomes its outcome."""
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalidWarning)
        try:
            made = job(subject)
        except CalidError as error:
            return Outcome(
                subject.name, "failed", error.exit_code, error.rule, error.remedy,
                time.perf_counter() - started,
            )  # fmt: skip
        except Exception as error:  # a fault of one subject is not one of the others
            return Outcome(
                subject.name, "failed", CalidError.exit_code,
                f"Unexpected {type(error).__name__}: {error}",
                "Run calid reconstruct on this file alone to see where, and report it.",
                time.perf_counter() - started,
            )  # fmt: skip
    notes = " | ".join(str(w.message) for w in caught if issubclass(w.category, CalidWarning))
    seconds = time.perf_counter() - started
    return Outcome(
        subject.name, "done", 0, "", "", seconds, made.slices, made.sha256, notes=notes
    )  # fmt: skip


def lost(subject: Subject, attempts: int) -> Outcome:
    """The outcome of a subject whose workers died, every time."""
    return Outcome(
        subject.name,
        "lost",
        CalidError.exit_code,
        f"The worker died while it was at it, {attempts} times out of {attempts}.",
        "Most often memory ran out: use fewer workers or a larger machine, then --resume.",
        attempts=attempts,
    )
