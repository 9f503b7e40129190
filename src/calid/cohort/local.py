"""Workers that are processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from calid.cohort.subject import Job, Outcome, Queue, Setup, Subject, attempt
from calid.errors import CalidError, CohortError

__all__ = ["LocalEngine"]

GRACE = 5.0
"""Seconds that a worker has to end by itself."""
STILLBORN = 3
"""Deaths of workers in a row, during set-up, after which the run fails."""


@dataclass
class Worker:
    """A process, our end of the pipe to it, whether it is set up, and what it works on."""

    process: BaseProcess
    pipe: Connection
    ready: bool = False
    subject: Subject | None = None


@dataclass(frozen=True)
class LocalEngine:
    """Processes, each of which sets up once and takes subjects one after the other.

    A process that dies is replaced and its subject begun again. (The pools of the standard
    library give up, or wait for ever, when a process dies.)
    """

    workers: int  # positive
    threads: int = 1  # of the CPU, for each worker
    retries: int = 1  # of a subject whose worker died

    def run(self, setup: Setup, subjects: Sequence[Subject]) -> Iterator[Outcome]:
        """As `Engine.run`."""
        queue = Queue(subjects, self.retries)
        crew: list[Worker] = []
        stillborn = 0
        try:
            while queue or any(worker.subject for worker in crew):
                busy = sum(worker.subject is not None for worker in crew)
                while len(crew) < min(self.workers, busy + len(queue)):
                    crew.append(self._hire(setup))
                for worker in crew:
                    if queue and worker.ready and worker.subject is None:
                        worker.subject = queue.take()
                        # If it died while it waited, that is noticed below.
                        with contextlib.suppress(OSError):
                            worker.pipe.send(worker.subject)
                ends = wait([worker.pipe for worker in crew])
                for worker in [worker for worker in crew if worker.pipe in ends]:
                    try:
                        message = worker.pipe.recv()
                    except (EOFError, OSError):
                        crew.remove(worker)
                        _dismiss([worker])
                        stillborn += not worker.ready
                        if stillborn >= STILLBORN:
                            raise CohortError(
                                "workers",
                                f"{stillborn} workers in a row died while they were set up (the "
                                f"last with exit code {worker.process.exitcode}).",
                                "Most often memory is short: use fewer workers.",
                            ) from None
                        if worker.subject and (outcome := queue.died(worker.subject)):
                            yield outcome
                        continue
                    if isinstance(message, CalidError):
                        raise message
                    if worker.subject is None:
                        worker.ready, stillborn = True, 0
                    else:
                        yield replace(message, attempts=queue.attempts[worker.subject])
                        worker.subject = None
        finally:
            _dismiss(crew)

    def _hire(self, setup: Setup) -> Worker:
        # Spawn, not fork: torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, setup, self.threads), daemon=True, name="calid worker"
        )
        process.start()
        # So that its death is the end of the pipe.
        theirs.close()
        return Worker(process, ours)


def _dismiss(crew: Sequence[Worker]) -> None:
    """End workers, busy or not, with time to remove half-written files."""
    for worker in crew:
        worker.pipe.close()
        worker.process.terminate()
    for worker in crew:
        worker.process.join(GRACE)
        worker.process.kill()
        worker.process.join()


def _work(pipe: Connection, setup: Setup, threads: int) -> None:
    """Set up, then do what comes through the pipe until it closes."""
    # Ctrl-C goes to the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An exception, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        try:
            job: Job = setup()
        except CalidError as error:
            pipe.send(error)
            return
        pipe.send("ready")
        while True:
            pipe.send(attempt(job, pipe.recv()))
    # Nothing is half written any more; an exception while Python ends would be printed.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
