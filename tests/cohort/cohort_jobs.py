"""Cheap work for the engines: it writes a file, and misbehaves where it is told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from calid.cohort.subject import Job, Subject
from calid.errors import GeometryError, WeightsError


def subjects_named(names: Iterable[str]) -> list[Subject]:
    return [Subject(PurePosixPath(f"{name}.nii.gz"), Path(f"/in/{name}")) for name in names]


@dataclass(frozen=True)
class Scribe:
    """Every subject's name tells what becomes of it.

    ``broken…`` raises a typed error and ``bug…`` another one; ``deadly…`` kills its worker
    every time, ``once…`` the first time; ``stuck…`` waits for ever, the first time.
    """

    out: Path

    def __call__(self) -> Job:
        (self.out / f"worker-{os.getpid()}").touch()
        return self._write

    def _write(self, subject: Subject) -> tuple[int, str]:
        begun = self.out / f"{subject.name}.begun"
        first = not begun.exists()
        with begun.open("a") as file:
            file.write(f"{os.getpid()} {_node()}\n")
        if subject.name.startswith("broken"):
            raise GeometryError(subject.source, "It is bent.", "Straighten it.")
        if subject.name.startswith("bug"):
            raise ZeroDivisionError("nothing to share")
        if subject.name.startswith("deadly") or (subject.name.startswith("once") and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if subject.name.startswith("stuck") and first:
            time.sleep(600)
        time.sleep(0.05)
        with (self.out / f"{subject.name}.made").open("a") as file:
            file.write(".")
        return 7, f"hash of {subject.name}"

    def made(self) -> dict[str, int]:
        """How often the output of every subject was written."""
        return {p.stem: len(p.read_text()) for p in self.out.glob("*.made")}


@dataclass(frozen=True)
class Unready:
    """Cannot be set up."""

    def __call__(self) -> Job:
        raise WeightsError("weights", "They are damaged.", "Install calid again.")


@dataclass(frozen=True)
class Stillborn:
    """Dies while it is set up."""

    def __call__(self) -> Job:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def _node() -> str:
    """Ray's name of this node; empty elsewhere."""
    import sys

    ray = sys.modules.get("ray")
    return ray.get_runtime_context().get_node_id() if ray and ray.is_initialized() else ""
