"""Reconstruct one subject of a cohort, and recognise what an earlier run has left of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from calid.cohort.subject import Job, Outcome, Subject
from calid.errors import CalidError
from calid.inference.options import Generation, Reading
from calid.io.atomic import make_folder
from calid.io.sidecar import record_of, sha256, sidecar_of, write_json
from calid.weights import preset_weights, weights_path

__all__ = ["Reconstruction", "kept_outputs"]

_READERS = 8  # files hashed at a time: mostly waiting for the disk


@dataclass(frozen=True)
class Reconstruction:
    """Sets up a worker: the model is loaded once and serves all of its subjects.

    Parameters
    ----------
    generation
        What to reconstruct, and on which device.
    reading
        How inputs are read.
    out
        Root of the derivatives.
    threads
        CPU threads of one worker.
    """

    generation: Generation
    reading: Reading
    out: Path
    threads: int = 1

    def __call__(self) -> Job:
        """Load the model; the function that reconstructs one subject.

        Raises
        ------
        CalidError
            If options contradict each other, or weights or device are not there.
        """
        import torch

        from calid.inference.model import model_for
        from calid.inference.reconstruct import reconstruct
        from calid.inference.record import run_record
        from calid.io import write_volume
        from calid.io.nifti import refuse_reconstruction
        from calid.io.sidecar import together

        torch.set_num_threads(self.threads)
        wanted = self.generation
        wanted.answer()  # refuses what cannot be asked, before any work
        model = model_for(wanted)

        def job(subject: Subject) -> tuple[int, str]:
            target = self.out / subject.target
            started = time.perf_counter()
            refuse_reconstruction(subject.source)
            stack = self.reading.read(subject.source)
            loaded = time.perf_counter()
            volume = reconstruct(stack, wanted, model=model)
            seconds = {"read": loaded - started, "reconstruct": time.perf_counter() - loaded}
            make_folder(target.parent)
            facts = run_record(volume, subject.source, self.reading, seconds)
            facts["SkullStripped"] = False  # BIDS requires it of every derived image
            with together() as write:
                digest = write(target, partial(write_volume, volume))
                facts["files_sha256"] = {"output": digest}
                # Last: a volume is complete once the record with its hash lies beside it.
                write(sidecar_of(target), partial(write_json, facts))
            return len(volume.positions), digest

        return job


def kept_outputs(
    generation: Generation, reading: Reading, subjects: Sequence[Subject], out: Path
) -> Iterator[Outcome | None]:
    """The outcome of every subject that need not be done again, in order; else None.

    Its record is complete, was made by the same release and weights with the same options
    from the same input, and the output's hash is the recorded one.
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
