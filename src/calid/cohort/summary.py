"""The table of a cohort: one line a subject, on disk in time and never half."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

from calid.cohort.subject import Outcome, Subject
from calid.io.sidecar import write_text

__all__ = ["INTERVAL", "Summary"]

INTERVAL = 10.0
"""Seconds between two writings of the file while subjects come in."""


class Summary:
    """Outcomes so far, in the order of subjects.

    Parameters
    ----------
    path
        CSV file with the fields of `Outcome` and the source of every subject.
    subjects
        All that may come.
    """

    def __init__(self, path: Path, subjects: Iterable[Subject]) -> None:
        self.path = path
        self._sources = {subject.name: subject.source for subject in subjects}
        self._outcomes: dict[str, Outcome] = {}
        self._written = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Take in an outcome; the file follows within `INTERVAL`."""
        self._outcomes[outcome.subject] = outcome
        if time.monotonic() - self._written >= INTERVAL:
            self.write()

    def count(self, *statuses: str) -> int:
        """Number of subjects that ended with one of the statuses."""
        return sum(outcome.status in statuses for outcome in self._outcomes.values())

    def troubled(self) -> list[Outcome]:
        """Outcomes of subjects without a valid output."""
        return [outcome for outcome in self._ordered() if outcome.status in ("failed", "lost")]

    def write(self) -> None:
        """Replace the file.

        Raises
        ------
        OutputError
            If that is refused.
        """
        buffer = io.StringIO()
        names = [field.name for field in fields(Outcome)]
        writer = csv.DictWriter(buffer, [*names, "source"], lineterminator="\n")
        writer.writeheader()
        for outcome in self._ordered():
            row = asdict(outcome) | {"seconds": f"{outcome.seconds:.3f}"}
            writer.writerow(row | {"source": self._sources[outcome.subject]})
        write_text(buffer.getvalue(), self.path)
        self._written = time.monotonic()

    def _ordered(self) -> list[Outcome]:
        return [self._outcomes[name] for name in self._sources if name in self._outcomes]
