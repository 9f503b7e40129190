"""Workers that are actors of a Ray cluster."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from calid.cohort.subject import Job, Outcome, Queue, Setup, Subject, attempt
from calid.errors import CalidError, CalidWarning, CohortError, UsageError

__all__ = ["RayEngine"]

SETUPS = 30
"""How often the set-up of an actor is retried. A lost node counts several times, until the cluster
notices the loss; an actor that dies while it loads the model counts once."""
PROBE = 10.0
"""Seconds in which a cluster must answer."""
PATIENCE = 60.0
"""Seconds without any worker after which the user is told."""


@dataclass(frozen=True)
class RayEngine:
    """Actors, each of which sets up once and takes subjects one after the other.

    An actor that dies, alone or with its node, is started again by Ray wherever there is room.
    Its subject goes back to the queue rather than with it, so that another worker can take it
    while the cluster has no room for the actor. The address is that of a running cluster;
    ``auto`` finds the one of this machine or of RAY_ADDRESS, ``local`` starts one that ends
    with the run.
    """

    address: str = "auto"
    workers: int = 0  # 0 for as many as the cluster has room for now
    num_cpus: float = 1.0  # that an actor reserves
    num_gpus: float = 0.0  # a share is allowed
    retries: int = 1  # of a subject whose worker died

    def run(self, setup: Setup, subjects: Sequence[Subject]) -> Iterator[Outcome]:
        """As `Engine.run`; the cluster is left as it was found."""
        with _connected(self.address) as ray:
            count = min(self.workers or self._room(ray.cluster_resources()), len(subjects))
            actor = ray.remote(
                num_cpus=self.num_cpus, num_gpus=self.num_gpus, max_restarts=-1, max_task_retries=0
            )(_Worker)
            crew = [actor.remote(setup) for _ in range(count)]
            try:
                yield from _share_out(ray, crew, Queue(subjects, self.retries))
            finally:
                for worker in crew:
                    ray.kill(worker)

    def _room(self, resources: dict[str, float]) -> int:
        """Number of actors for which the cluster has room."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        rooms = [resources.get(name, 0.0) // need for name, need in wanted.items() if need > 0]
        room = int(min(rooms, default=0))
        if room < 1:
            raise UsageError(
                "`num_cpus` and `num_gpus`",
                f"The cluster has no room for a worker: {resources.get('CPU', 0):g} CPUs, "
                f"{resources.get('GPU', 0):g} GPUs.",
                "Reserve less, or give `workers` to wait for nodes to come.",
            )
        return room


class _Worker:
    """What runs on a node; Ray makes an actor of it."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._job: Job | None = None

    def prepare(self) -> CalidError | None:
        """Set up. Not in the constructor, whose errors would not come back whole."""
        try:
            self._job = self._job or self._setup()
        except CalidError as error:
            return error
        return None

    def run(self, subject: Subject) -> Outcome:
        """One subject."""
        # An actor that was started again since `prepare` has nothing.
        self._job = self._job or self._setup()
        return attempt(self._job, subject)


def _share_out(ray: Any, crew: Sequence[Any], queue: Queue) -> Iterator[Outcome]:
    """One subject at a time to every actor that is set up.

    Subjects are not sent ahead: an actor that has no place in the cluster would keep them.
    """
    # Ray keeps this call for an actor that has no place yet, and repeats it after a death.
    calls: dict[Any, tuple[Any, Subject | None]] = {
        _prepare(worker): (worker, None) for worker in crew
    }
    idle: list[Any] = []
    while queue or any(subject for _, subject in calls.values()):
        while queue and idle:
            worker, subject = idle.pop(), queue.take()
            calls[worker.run.remote(subject)] = worker, subject
        if not calls:
            raise CohortError(
                "workers",
                "All of them died while they were set up.",
                "Most often memory is short: reserve more CPUs for each, so that fewer fit a node.",
            )
        ended, _ = ray.wait(list(calls), timeout=PATIENCE)
        if not (ended or any(subject for _, subject in calls.values())):
            warnings.warn(
                "The cluster has no room for any worker yet. Still waiting.",
                CalidWarning,
                stacklevel=2,
            )
        for call in ended:
            worker, begun = calls.pop(call)
            try:
                answer = ray.get(call)
            except ray.exceptions.RayActorError:
                if begun is not None:
                    calls[_prepare(worker)] = worker, None
                    if outcome := queue.died(begun):
                        yield outcome
                continue
            if isinstance(answer, CalidError):
                raise answer
            idle.append(worker)
            if begun is not None:
                yield replace(answer, attempts=queue.attempts[begun])


def _prepare(worker: Any) -> Any:
    return worker.prepare.options(max_task_retries=SETUPS).remote()


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect Ray to a cluster; disconnect it at the end unless it was connected before."""
    # Ray asks for the user's consent by default; nothing is sent from here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "`engine` ray", "Ray is not installed here.", 'pip install "calid[ray]"'
        ) from error
    before = ray.is_initialized()
    if not before:
        _connect(ray, address)
    try:
        yield ray
    finally:
        if not before:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    own = {"include_dashboard": False} if address == "local" else {}
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdecimal() and "/" not in host:
            # Ray itself would try for many minutes.
            socket.create_connection((host, int(port)), PROBE).close()
        ray.init(address=address, log_to_driver=False, logging_level="WARNING", **own)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"`address` {address}",
            f"No Ray cluster answers there ({str(error).splitlines()[0]}).",
            "Start one with ray start --head, or use `address` local or `engine` local.",
        ) from error
