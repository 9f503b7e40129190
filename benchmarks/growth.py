"""Measure how time and memory grow with the work: docs/results/growth.md and growth.png.

    python benchmarks/growth.py [--side 64]

Every figure is of a process of its own on a synthetic stack: processor seconds of one thread,
the better of two runs, and the peak of memory, beside what
`calid.inference.memory` says beforehand. One thing grows at a time; the slope is that of a
straight line through logarithms, so that 1 is proportional and 0 constant.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
SEED = 1000


@dataclass(frozen=True)
class Work:
    """One reconstruction."""

    slices: int = 4
    frames: int = 1
    factor: int = 3
    steps: int = 2
    samples: int = 0
    side: int = 64


SWEEPS = {
    "slices": ([3, 5, 9], Work()),
    "frames": ([1, 2, 4], Work(slices=3)),
    "factor": ([2, 3, 5, 9, 17, 33], Work(slices=2)),
    "steps": ([1, 4, 16], Work(slices=2, factor=5, samples=1)),
    "samples": ([1, 2, 4], Work(slices=2, factor=5)),
    "side": ([64, 128, 256], Work(slices=2, factor=2)),
}


def main() -> None:
    """Measure all sweeps, then write the table and the picture."""
    if len(sys.argv) == 3 and sys.argv[1] == "--measure":
        print(json.dumps(measure(Work(**json.loads(sys.argv[2])))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=64, help="pixels of 1.5 mm")
    options = parser.parse_args()
    found = {
        name: [in_own_process(replace(base, **{"side": options.side} | {name: n})) for n in values]
        for name, (values, base) in SWEEPS.items()
    }
    text = page(found, options.side)
    (RESULTS / "growth.md").write_text(text)
    picture(found, RESULTS / "growth.png")
    print(text)


def in_own_process(work: Work) -> dict[str, float]:
    """Measure in a process without earlier peaks and warm caches."""
    command = [sys.executable, "-W", "ignore", __file__, "--measure", json.dumps(asdict(work))]
    single = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=single)
    found: dict[str, float] = json.loads(done.stdout)
    print(asdict(work), {k: round(v, 2) for k, v in found.items()}, file=sys.stderr, flush=True)
    return found


def measure(work: Work) -> dict[str, float]:
    """Seconds of the processor, and MB at the peak, estimated, and before any work."""
    import time

    import torch

    from calid import Generation, HeartPhantom, load_model, reconstruct
    from calid.evaluation.cost import peak_memory
    from calid.inference.memory import Demand

    torch.set_num_threads(1)
    phases = tuple(n / work.frames for n in range(work.frames))
    stack = HeartPhantom(SEED).acquire(
        thickness=0.0, field_of_view=work.side * 1.5, slices=work.slices, phases=phases
    )
    model = load_model(device="cpu", precision="float32")
    first = replace(stack, data=stack.data[..., :32, :32])
    reconstruct(first, Generation(factor=2, region="whole"), model=model)
    wanted = Generation(factor=work.factor, steps=work.steps, samples=work.samples, region="whole")
    loaded, seconds = peak_memory(), []
    for _ in range(2):  # other programs can disturb the caches; they never speed it up
        started = time.process_time()
        reconstruct(stack, wanted, model=model)
        seconds.append(time.process_time() - started)
    estimate = Demand.of(stack, work.factor, work.samples).total() / 1e6
    return {"seconds": min(seconds), "loaded": loaded, "peak": peak_memory(), "estimate": estimate}


def slope(values: list[int], amounts: list[float]) -> float:
    """Exponent of growth, by least squares on logarithms; 0 where nothing is measurable."""
    if min(amounts) <= 0:
        return 0.0
    return float(np.polyfit(np.log(values), np.log(amounts), 1)[0])


def growing(name: str, values: list[int]) -> list[int]:
    """What is expected to cost: gaps for slices, generated slices for a factor."""
    if name == "side":
        return [v * v for v in values]
    return [v - 1 if name in ("slices", "factor") else v for v in values]


def page(found: dict[str, list[dict[str, float]]], side: int) -> str:
    """The page of results."""
    from calid.evaluation.tables import markdown_table

    lines = [
        "# Growth",
        "",
        "Written by `python benchmarks/growth.py`. One thing grows at a time, on synthetic stacks",
        f"of {side} x {side} pixels, the released default preset in float32, one thread. Time is",
        "of the processor, the better of two runs, without start-up. The slope is the",
        "exponent of growth: 1 is",
        "proportional, 0 is constant; it is taken over gaps (slices - 1), generated slices per gap",
        "(factor - 1), pixels (side squared), and otherwise over the number itself. Memory is the",
        "process's peak; `above loading` is what the work adds to libraries and networks;",
        "`estimate` is what is computed beforehand and held against `--max-memory`.",
        "",
    ]
    for name, (values, base) in SWEEPS.items():
        rows = found[name]
        fixed = {k: v for k, v in asdict(base).items() if k not in (name, "side")}
        places = growing(name, values)
        lines += [
            f"## {name}",
            "",
            ", ".join(f"{k} {v}" for k, v in fixed.items()) + ".",
            "",
        ]
        cells = (
            [
                *(
                    f"{value}",
                    f"{row['seconds']:.2f}",
                    f"{row['seconds'] / rows[0]['seconds']:.2f}",
                ),
                *(f"{row['peak']:.0f}", f"{row['peak'] - row['loaded']:.0f}"),
                f"{row['estimate']:.0f}",
            ]
            for value, row in zip(values, rows, strict=True)
        )
        head = [name, "time s", "ratio", "peak MB", "above loading MB", "estimate MB"]
        lines += markdown_table(head, cells)
        time_slope = slope(places, [r["seconds"] for r in rows])
        memory_slope = slope(places, [r["peak"] for r in rows])
        lines += ["", f"Slope of time {time_slope:.2f}, of peak memory {memory_slope:.2f}.", ""]
    return "\n".join(lines)


def picture(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Time above, memory below, one column per thing that grows."""
    from matplotlib.figure import Figure

    from calid.report.figures import LIGHT, save_figure

    figure = Figure(figsize=(2.3 * len(SWEEPS), 4.6), layout="constrained")
    axes: Any = figure.subplots(2, len(SWEEPS))
    for column, (name, (values, _)) in enumerate(SWEEPS.items()):
        rows, (time, memory) = found[name], axes[:, column]
        places = growing(name, values)
        seconds = [r["seconds"] for r in rows]
        time.loglog(places, seconds, "o-", color="tab:blue", label="measured")
        straight = [seconds[0] * p / places[0] for p in places]
        time.loglog(places, straight, ":", color="grey", label="proportional")
        time.set_title(f"{name}: slope {slope(places, seconds):.2f}", fontsize=9)
        memory.plot(places, [r["peak"] for r in rows], "o-", color="tab:red", label="measured")
        memory.plot(places, [r["estimate"] for r in rows], "--", color="grey", label="estimate")
        memory.set_xscale("log")
        memory.set_ylim(bottom=0)
        memory.set_xlabel(
            {"slices": "gaps", "factor": "factor - 1", "side": "pixels"}.get(name, name)
        )
        labels = list(zip(values, places, strict=True))
        time.set_yticks(seconds, [f"{s:.2g}" for s in seconds])
        for axis in (time, memory):
            axis.set_xticks(places, [f"{v}²" if name == "side" else str(p) for v, p in labels])
            axis.minorticks_off()
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("processor time, s")
    axes[1, 0].set_ylabel("peak memory, MB")
    axes[0, 0].legend(fontsize=7)
    axes[1, 0].legend(fontsize=7)
    save_figure(figure, path, limit=LIGHT)


if __name__ == "__main__":
    main()
