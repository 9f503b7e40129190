"""Reconstruct one subject of a cohort, and recognise what an earlier run has left of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from calid import Generation, Reading, record_of
from calid.cohort.subject import Job, Outcome, Subject
from calid.errors import CalidError
from calid.io.sidecar import sha256
from calid.weights import preset_weights, weights_path

__all__ = ["Reconstruction", "kept_outputs"]

_READERS = 8  # files hashed at a time: mostly waiting for the disk


@dataclass(frozen=True)
class Reconstruction:
    """Sets up a worker: the model is loaded once and serves all of its subjects."""

    generation: Generation
    reading: Reading
    out: Path  # root of the derivatives
    threads: int = 1  # of the CPU, for one worker

    def __call__(self) -> Job:
        """Load the model; the function that reconstructs one subject.

        Raises
        ------
        CalidError
            If options contradict each other, or weights or device are not there.
        """
        import torch

        from calid import load_model, reconstruct_file

        torch.set_num_threads(self.threads)
        wanted = self.generation
        wanted.answer()  # refuses what cannot be asked, before any work
        model = load_model(wanted.preset, wanted.device, wanted.precision, wanted.weights)
        facts = {"SkullStripped": False}  # BIDS requires it of every derived image

        def job(subject: Subject) -> tuple[int, str]:
            target = self.out / subject.target
            record = reconstruct_file(
                subject.source, target, wanted, self.reading, model=model, facts=facts
            )
            return record["output"]["shape"][1], record["files_sha256"]["output"]

        return job


def kept_outputs(
    generation: Generation, reading: Reading, subjects: Sequence[Subject], out: Path
) -> Iterator[Outcome | None]:
    """For every subject, in order, its outcome if it need not be done again; else None.

    It need not if its record is complete and was made by the same release and weights, with the
    same options, from the same input, and the output still has the recorded hash.
    """
    files = preset_weights(generation.preset, generation.weights)
    needed = {name: sha256(path) for name, path in files.items()}
    # Recorded only where the network found the heart.
    known = needed | {"segmentation": sha256(weights_path("segmentation"))}
    wanted = {
        "request": generation.request(),
        "reading": reading.facts(),
        "software": {"name": "calid", "version": version("calid")},
    }

    def kept(subject: Subject) -> Outcome | None:
        try:
            record, _ = record_of(out / subject.target)  # found by the output's hash
            digest = record["files_sha256"]["output"]
            slices = int(record["output"]["shape"][1])
            same = (
                {name: record[name] for name in wanted} == wanted
                and needed.items() <= record["weights_sha256"].items() <= known.items()
                and record["input"]["sha256"] == sha256(subject.source)
            )
        except (OSError, ValueError, TypeError, LookupError, AttributeError, CalidError):
            return None  # missing, damaged or of another kind
        return Outcome(subject.name, "kept", slices=slices, sha256=digest) if same else None

    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(kept, subjects)
