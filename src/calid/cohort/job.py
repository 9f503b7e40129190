"""One subject of a cohort: read, reconstruct, write."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from calid.cohort.subject import Job, Made, Subject
from calid.inference.options import Generation, Reading
from calid.io.atomic import make_folder
from calid.io.sidecar import sidecar_of, write_json

__all__ = ["Reconstruction"]


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

        torch.set_num_threads(self.threads)
        wanted = self.generation
        wanted.answer()  # refuses what cannot be asked, before any work
        model = wanted.load()

        def job(subject: Subject) -> Made:
            from calid.inference.reconstruct import reconstruct
            from calid.inference.record import run_record
            from calid.io import write_volume
            from calid.io.nifti import refuse_reconstruction
            from calid.io.sidecar import together

            target = self.out / subject.target
            started = time.perf_counter()
            refuse_reconstruction(subject.source)
            stack = self.reading.read(subject.source)
            loaded = time.perf_counter()
            volume = reconstruct(stack, wanted, model=model)
            seconds = {"read": loaded - started, "reconstruct": time.perf_counter() - loaded}
            make_folder(target.parent)
            facts = run_record(volume, subject.source, self.reading, seconds)
            # A key that BIDS requires of every derived image.
            facts["SkullStripped"] = False
            with together() as write:
                digest = write(target, partial(write_volume, volume))
                facts["files_sha256"] = {"output": digest}
                # Last: a volume counts as complete once the record of its hash lies beside it.
                write(sidecar_of(target), partial(write_json, facts))
            return Made(len(volume.positions), digest)

        return job
