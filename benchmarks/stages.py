"""Where the time of a heart goes, and how soon the first picture is there.

    python benchmarks/stages.py

A synthetic heart of 10 slices in 256 x 256 pixels becomes 64 slices. The table gives seconds of
every stage after a small run in the same process, in bfloat16 where the machine has it and in
float32; of three runs, the fastest counts. Start-up is measured in processes of its own.
Everything goes to ``docs/results/stages.md``. Use a machine that does nothing else.
"""

from __future__ import annotations

import cProfile
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import calid
from calid.evaluation.tables import markdown_table
from calid.inference.machine import cpu_model

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"

STAGES = {
    "finding the heart": ("heart.py", "heart_region"),
    "encoding": ("model.py", "encode"),
    "registration": ("motion.py", "register"),
    "tau_1, tau_2, mean": ("interpolator.py", "encode"),
    "transport": ("interpolator.py", "crisp"),
    "sampler": ("interpolator.py", "sample"),
    "decoding": ("model.py", "decode"),
}
"""File and function of every stage; none calls another."""

RUNS = {
    "heart box": calid.Generation(factor=7),
    "whole field": calid.Generation(factor=7, region="whole"),
    "whole field, one sample": calid.Generation(factor=7, region="whole", samples=1),
}


def main() -> None:
    """Measure and write."""
    stack = calid.HeartPhantom(1000).acquire(slices=10, field_of_view=384.0)
    head, rows = ["", *STAGES, "the rest", "all"], []
    for precision in ("auto", "float32"):
        model = calid.load_model(device="cpu", precision=precision)
        calid.reconstruct(stack, calid.Generation(factor=2), model=model)
        for name, wanted in RUNS.items():
            label = f"{name}, {str(model.runtime.precision).removeprefix('torch.')}"
            fastest = min((stages(stack, wanted, model) for _ in range(3)), key=lambda row: row[-1])
            rows.append([label, *(f"{seconds:.2f}" for seconds in fastest)])
    flags = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in cpu_flags()]
    lines = [
        "# Stages",
        "",
        f"Written by `python benchmarks/stages.py` on {cpu_model()}, {os.cpu_count()} cores "
        f"({', '.join(flags) or platform.machine()}), torch {torch.__version__}:",
        "a heart of 10 slices, 256 x 256 pixels, to 64 slices, weights loaded. Seconds, of the "
        "fastest of three runs.",
        "",
        *markdown_table(head, rows),
        "",
        *markdown_table(["start-up, modules compiled", "seconds"], start_up(stack)),
        "",
    ]
    (RESULTS / "stages.md").write_text("\n".join(lines))
    print("\n".join(lines))


def stages(stack: calid.SliceStack, wanted: calid.Generation, model: calid.Model) -> list[float]:
    """Seconds of every stage, of the rest, and of all."""
    profile = cProfile.Profile()
    begun = time.perf_counter()
    profile.runcall(calid.reconstruct, stack, wanted, model=model)
    whole = time.perf_counter() - begun
    profile.create_stats()
    found = {
        (Path(file).name, function): figures[3]
        for (file, _, function), figures in profile.stats.items()
    }
    parts = [found.get(place, 0.0) for place in STAGES.values()]
    return [*parts, whole - sum(parts), whole]


def start_up(stack: calid.SliceStack) -> list[list[str]]:
    """Two commands from nothing, and the first generated slices of a heart with loaded weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.nii.gz"
        real = np.ones(stack.n_slices, bool)
        volume = calid.Volume(stack.data, stack.affine, stack.positions, real, stack.frame_times)
        calid.write_volume(volume, path)
        commands = {
            name: min(seconds_of(name.split()[1:], path) for _ in range(3))
            for name in ("calid --help", "calid inspect stack.nii.gz")
        }
    model = calid.load_model(device="cpu")
    begun = time.perf_counter()
    images = calid.IntensityWindow.of(stack.data).normalise(stack.data)
    given = images, stack.positions, stack.positions[:-1] + 5.0, stack.pixel_spacing
    next(iter(model.film(*given, calid.Answer())))
    commands["first slices, weights loaded, whole field"] = time.perf_counter() - begun
    return [[f"`{k}`" if k.startswith("calid") else k, f"{v:.2f}"] for k, v in commands.items()]


def seconds_of(arguments: list[str], stack: Path) -> float:
    """Of a command in a process of its own."""
    asked = [str(stack) if part == stack.name else part for part in arguments]
    # Compiled modules are kept after the first start, as they are for a user.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "calid", *asked], check=True, stdout=subprocess.DEVNULL, env=kept
    )
    return time.perf_counter() - begun


def cpu_flags() -> set[str]:
    """What the processor can do, as far as Linux says it."""
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()


if __name__ == "__main__":
    main()
