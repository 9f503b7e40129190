"""How much faster two workers are than one, and what a large cohort would take.

    python benchmarks/cohort.py [--engine ray] [--subjects 20] [--size 64] [--slices 4] [--factor 3]

Small synthetic hearts are reconstructed by `calid cohort` in separate runs: one worker with one
thread, two workers with one each, one worker with two. The steady pace leaves out the start of
the workers, which a long run pays once. On a machine that others use, believe the CPU seconds
rather than the clock; workers of Ray are not this process's children, so theirs are not known
here. Nothing is written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calid.cohort.job import Reconstruction
from calid.cohort.local import LocalEngine
from calid.cohort.ray_engine import RayEngine
from calid.cohort.subject import Engine
from calid.cohort.walk import walk
from calid.data.phantom import HeartPhantom
from calid.inference.machine import available_cpus
from calid.inference.settings import Generation, Reading
from calid.io import write_volume
from calid.stack import Volume

LARGE = 50_000
SPLITS = ((1, 1), (2, 1), (1, 2))
"""Workers, and threads of each."""

ENGINES: dict[str, Callable[[int, int], Engine]] = {
    "local": LocalEngine,
    "ray": lambda workers, threads: RayEngine("local", workers, num_cpus=threads),
}


@dataclass(frozen=True)
class Measured:
    """Seconds of a run, of which CPU; and subjects an hour once its workers stand."""

    whole: float
    cpu: float
    pace: float


def main() -> None:
    """Measure every split in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, default="local")
    parser.add_argument("--subjects", type=int, default=20)
    parser.add_argument("--size", type=int, default=64, help="side of an image in pixels")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--factor", type=int, default=3)
    options = parser.parse_args()
    cpus = available_cpus()
    print(f"{options.engine}: {options.subjects} subjects of {options.slices} slices of "
          f"{options.size} x {options.size}, factor {options.factor}; {platform.machine()}, {cpus} CPUs, load "
          f"{os.getloadavg()[0]:.1f} at the start")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        hearts = Path(folder) / "hearts"
        synthesise(hearts, options)
        found = {}
        print(f"{'workers':>8}{'threads':>8}{'seconds':>9}{'CPU s':>9}{'an hour':>9}")
        for workers, threads in SPLITS:
            measured = run(hearts, Path(folder) / f"{workers}-{threads}", workers, threads, options)
            found[workers, threads] = measured
            print(f"{workers:8}{threads:8}{measured.whole:9.1f}{measured.cpu:9.1f}"
                  f"{measured.pace:9.0f}", flush=True)  # fmt: skip
    two = found[2, 1]
    for threads in (1, 2):
        print(f"2 workers of 1 thread against 1 worker of {threads}: "
              f"{two.pace / found[1, threads].pace:.2f} times the pace, "
              f"{found[1, threads].whole / two.whole:.2f} with the start")  # fmt: skip
    hours = LARGE / two.pace
    print(f"on paper, {LARGE:,} such subjects: {hours:.1f} h on this machine, "
          f"{60 * hours / 100:.0f} min on 100 like it, if the disk keeps up")  # fmt: skip


def synthesise(folder: Path, options: argparse.Namespace) -> None:
    """Write the hearts."""
    folder.mkdir()
    for seed in range(options.subjects):
        stack = HeartPhantom(seed).acquire(
            slices=options.slices, field_of_view=options.size * 1.5, thickness=0.0
        )
        real = np.ones(stack.n_slices, bool)
        volume = Volume(stack.data, stack.affine, stack.positions, real, stack.frame_times)
        write_volume(volume, folder / f"heart{seed:03d}.nii.gz")


def run(
    hearts: Path, out: Path, workers: int, threads: int, options: argparse.Namespace
) -> Measured:
    """One cohort."""
    setup = Reconstruction(
        Generation(factor=options.factor, device="cpu"), Reading(), out, threads
    )
    subjects = walk(hearts)
    start, before = time.perf_counter(), cpu_of_workers()
    ends = []
    for outcome in ENGINES[options.engine](workers, threads).run(setup, subjects):
        assert outcome.status == "done", outcome.rule
        ends.append(time.perf_counter())
    # Every worker's first subject tells that it stands.
    begun = ends[workers - 1]
    pace = 3600 * (len(ends) - workers) / (ends[-1] - begun)
    return Measured(ends[-1] - start, cpu_of_workers() - before, pace)


def cpu_of_workers() -> float:
    """CPU seconds of all processes that have ended: not disturbed by whoever else computes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
