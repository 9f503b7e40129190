"""The unit of a cohort, what became of it, and which one is next."""

from __future__ import annotations

import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from calid.errors import CalidError, CalidWarning

__all__ = ["ENDING", "Engine", "Job", "Outcome", "Queue", "Setup", "Subject", "attempt"]

ENDING = ".nii.gz"
"""Of every output."""


@dataclass(frozen=True, order=True)
class Subject:
    """One stack to reconstruct: a subject, or one session or run of it."""

    target: PurePosixPath  # below the root of the derivatives; unique in the cohort
    source: Path  # whatever `calid.read` takes

    @property
    def name(self) -> str:
        """The target without its ending."""
        return str(self.target).removesuffix(ENDING)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a subject.

    The status is ``kept`` if an earlier run left a valid output, ``failed`` if it raised an error,
    and ``lost`` if its worker died in every attempt.
    """

    subject: str  # its name
    status: Literal["done", "kept", "failed", "lost"]
    exit_code: int = 0  # as `calid reconstruct` would end
    rule: str = ""  # of the error, like the remedy
    remedy: str = ""
    seconds: float = 0.0  # from reading to writing; 0 if nothing was made
    slices: int = 0  # of the dense volume
    sha256: str = ""  # of its file
    attempts: int = 1  # how often it was begun
    notes: str = ""  # warnings, joined by ``|``


Job = Callable[[Subject], tuple[int, str]]
"""Reconstructs one subject and writes its output, complete or not at all.

Returns the number of slices of the dense volume and the SHA-256 of its file.
"""

Setup = Callable[[], Job]
"""Called once in every worker, to load what all subjects share. It is pickled."""


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
            slices, digest = job(subject)
            notes = [str(w.message) for w in caught if issubclass(w.category, CalidWarning)]
            outcome = Outcome(
                subject.name, "done", slices=slices, sha256=digest, notes=" | ".join(notes)
            )
        except CalidError as error:
            outcome = Outcome(subject.name, "failed", error.exit_code, error.rule, error.remedy)
        except Exception as error:  # one subject's fault must not stop the others
            outcome = Outcome(
                subject.name,
                "failed",
                CalidError.exit_code,
                f"Unexpected {type(error).__name__}: {error}",
                "Run calid reconstruct on this file alone to see where, and report it.",
            )
    return replace(outcome, seconds=time.perf_counter() - started)


class Queue:
    """Subjects in order; one whose worker died goes back to the front, up to ``retries`` times."""

    def __init__(self, subjects: Iterable[Subject], retries: int) -> None:
        self._waiting, self._retries = deque(subjects), retries
        self.attempts: Counter[Subject] = Counter()  # how often each subject was begun

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Subject:
        """The next subject, which counts as begun."""
        subject = self._waiting.popleft()
        self.attempts[subject] += 1
        return subject

    def died(self, subject: Subject) -> Outcome | None:
        """Put back a subject whose worker died, or return its outcome after the last attempt."""
        attempts = self.attempts[subject]
        if attempts <= self._retries:
            self._waiting.appendleft(subject)
            return None
        return Outcome(
            subject.name,
            "lost",
            CalidError.exit_code,
            f"The worker died during this subject, {attempts} times out of {attempts}.",
            "Most often memory ran out: use fewer workers or a larger machine, then `resume`.",
            attempts=attempts,
        )
