"""Which outputs of an earlier run still count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from calid.cohort.subject import Outcome, Subject
from calid.errors import CalidError
from calid.inference.options import Generation, Reading
from calid.io.sidecar import record_of, sha256
from calid.weights import preset_weights

__all__ = ["Valid"]

_READERS = 8  # files hashed at a time: mostly waiting for the disk


@dataclass(frozen=True)
class Valid:
    """What the record beside an output must say for the output to be kept.

    Parameters
    ----------
    request, reading
        The options that shape the slices, as `Generation.request` and `Reading.facts`.
    weights
        SHA-256 by name.
    software
        Name and version.
    """

    request: dict[str, Any]
    reading: dict[str, Any]
    weights: dict[str, str]
    software: dict[str, str]

    @classmethod
    def of(cls, generation: Generation, reading: Reading) -> Valid:
        """For outputs as this installation would make them."""
        return cls(
            generation.request(),
            reading.facts(),
            {
                n: sha256(p)
                for n, p in preset_weights(generation.preset, generation.weights).items()
            },
            {"name": "calid", "version": version("calid")},
        )

    def kept(self, subject: Subject, out: Path) -> Outcome | None:
        """The outcome of a subject that need not be done again; else none.

        Its record is complete, was made by the same release and weights with the same options
        from the same input, and the output's hash is the recorded one.
        """
        target = out / subject.target
        try:
            record, _ = record_of(target)  # of this very file: its hash is in it
            digest = record["files_sha256"]["output"]
            same = (
                record["request"] == self.request
                and record["reading"] == self.reading
                and record["weights_sha256"] == self.weights
                and record["software"] == self.software
                and record["input"]["sha256"] == sha256(subject.source)
            )
            slices = int(record["output"]["shape"][1])
        except (OSError, ValueError, TypeError, LookupError, CalidError):
            return None  # missing, damaged or of another kind: done again
        return Outcome(subject.name, "kept", slices=slices, sha256=digest) if same else None

    def sift(self, subjects: Sequence[Subject], out: Path) -> Iterator[Outcome | None]:
        """`kept` of every subject, in order, several at a time."""
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(lambda subject: self.kept(subject, out), subjects)
