"""How much faster two workers are than one, and what a large cohort would take.

    python benchmarks/cohort.py [--subjects 20] [--size 96] [--slices 6] [--factor 3]

Small synthetic hearts are reconstructed by `calid cohort`, with local processes and on a Ray
cluster that begins and ends with the run, in separate runs: one worker with one thread, two
workers with one each, one worker with two. The steady pace leaves out the start of the workers,
which a long run pays once. The table goes to ``docs/results/cohort.md``; nothing else is written
outside a temporary folder. Use a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from calid import Generation, HeartPhantom, Reading, Volume, write_volume
from calid.cohort.job import Reconstruction
from calid.cohort.local import LocalEngine
from calid.cohort.ray_engine import RayEngine
from calid.cohort.subject import Engine
from calid.cohort.walk import walk
from calid.evaluation.tables import markdown_table

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
LARGE = 50_000
SPLITS = ((1, 1), (2, 1), (1, 2))
"""Workers, and threads of each."""

ENGINES: dict[str, Callable[[int, int], Engine]] = {
    "local": LocalEngine,
    "ray": lambda workers, threads: RayEngine("local", workers, num_cpus=threads),
}


Measured = tuple[float, float]
"""Seconds of a run, and subjects an hour once its workers stand."""


def main() -> None:
    """Measure every split in turn, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=20)
    parser.add_argument("--size", type=int, default=96, help="side of an image in pixels")
    parser.add_argument("--slices", type=int, default=6)
    parser.add_argument("--factor", type=int, default=3)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found: dict[tuple[str, int, int], Measured] = {}
    with tempfile.TemporaryDirectory() as folder:
        hearts = Path(folder) / "hearts"
        synthesise(hearts, options)
        for engine in ENGINES:
            for split in SPLITS:
                out = Path(folder) / "-".join(map(str, (engine, *split)))
                found[(engine, *split)] = run(engine, hearts, out, *split, options)
                print(engine, *split, found[(engine, *split)], flush=True)
    (RESULTS / "cohort.md").write_text(page(found, options, load))


def page(
    found: dict[tuple[str, int, int], Measured], options: argparse.Namespace, load: float
) -> str:
    """What was measured, as Markdown."""
    cpus = len(os.sched_getaffinity(0))
    lines = [
        "# Cohort",
        "",
        f"Written by `python benchmarks/cohort.py`: {options.subjects} synthetic stacks of "
        f"{options.slices} slices of",
        f"{options.size} x {options.size} pixels, factor {options.factor}, on "
        f"{platform.machine()} with {cpus} CPUs, load {load:.1f} before. The pace is "
        "of the time",
        "after every worker's first subject. `pace` and `whole run` are ratios to one worker of",
        "one thread; a whole run begins with the start of the engine and its workers.",
        "",
    ]
    head = ["engine", "workers", "threads of each", "seconds", "subjects an hour", "pace"]
    cells = []
    for split, (whole, pace) in found.items():
        one_whole, one_pace = found[split[0], 1, 1]
        ratios = f"{pace / one_pace:.2f}", f"{one_whole / whole:.2f}"
        cells.append([*map(str, split), f"{whole:.1f}", f"{pace:.0f}", *ratios])
    lines += markdown_table([*head, "whole run"], cells)
    hours = LARGE / found["local", 2, 1][1]
    lines += [
        "",
        f"On paper, {LARGE:,} such subjects with two local workers: {hours:.1f} h on this machine, "
        f"{60 * hours / 100:.0f} min",
        "on 100 like it, if the disk keeps up.",
        "",
    ]
    return "\n".join(lines)


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
    engine: str,
    hearts: Path,
    out: Path,
    workers: int,
    threads: int,
    options: argparse.Namespace,
) -> Measured:
    """One cohort."""
    generation = Generation(factor=options.factor, device="cpu")
    setup = Reconstruction(generation, Reading(), out, threads)
    subjects = walk(hearts)
    start, ends = time.perf_counter(), []
    for outcome in ENGINES[engine](workers, threads).run(setup, subjects):
        assert outcome.status == "done", outcome.rule
        ends.append(time.perf_counter())
    # Every worker's first subject tells that it stands.
    pace = 3600 * (len(ends) - workers) / (ends[-1] - ends[workers - 1])
    return ends[-1] - start, pace


if __name__ == "__main__":
    main()
