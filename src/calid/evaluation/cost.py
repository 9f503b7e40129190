"""What methods cost: time and memory to make a heart or a film dense, side by side.

Every method runs in a process of its own, so that neither peaks of memory nor warm caches
mix. See `calid.evaluation.cost_worker` for what is measured there. Nothing here imports torch.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from calid.errors import CalidError, UsageError
from calid.inference.machine import available_cpus, cpu_model

__all__ = ["FILM", "HEART", "METHODS", "Costed", "Workload", "measure_cost"]


@dataclass(frozen=True)
class Workload:
    """What is made dense: a phantom of a full field of view.

    Parameters
    ----------
    name
        Of its table.
    slices
        Acquired, per frame.
    factor
        Steps into which every gap is cut: 10 slices and a factor of 7 give 64.
    side
        Of the square images in pixels of 1.5 mm, a multiple of 32.
    frames
        Of the film; 1 for a heart.
    timed_frames
        How many of them are really made; the time for all is extrapolated from these.
    """

    name: str = "heart"
    slices: int = 10
    factor: int = 7
    side: int = 256
    frames: int = 1
    timed_frames: int = 1

    def __post_init__(self) -> None:
        if self.slices < 2 or self.factor < 2 or self.side % 32 or self.side < 32:
            raise UsageError(
                "workload",
                f"{self.slices} slices of {self.side} pixels, times {self.factor}, are no heart.",
                "Use 2 slices and a factor of 2 or more, and a side that is a multiple of 32.",
            )
        if not 1 <= self.timed_frames <= self.frames:
            raise UsageError(
                "workload", f"{self.timed_frames} of {self.frames} frames.", "Time one or more."
            )

    @property
    def dense_slices(self) -> int:
        """Slices of a dense frame, acquired ones included."""
        return (self.slices - 1) * self.factor + 1


@dataclass(frozen=True)
class Costed:
    """A method with its settings.

    Parameters
    ----------
    name
        Of its row.
    kind
        What it is.
    preset, dial, samples, steps
        Of ``calid``; no dial and no steps take those of the weights.
    region
        Of ``calid``: networks around the heart, finding it included, or everywhere.
    encode_steps, render_steps
        Of ``pixel-diffusion``: evaluations per acquired and per generated slice.
    timed_steps, batch
        How many evaluations of how many slices at once are really made.
    base
        Channels of its U-Net.
    """

    name: str
    kind: Literal["linear", "regression", "calid", "pixel-diffusion"]
    preset: Literal["default", "paper"] = "default"
    dial: float | None = None
    samples: int = 0
    steps: int | None = None
    region: Literal["heart", "whole"] = "whole"
    encode_steps: int = 100
    render_steps: int = 100
    timed_steps: int = 2
    batch: int = 1
    base: int = 128


HEART = Workload()
FILM = Workload("film", frames=30, timed_frames=2)

METHODS = (
    Costed("linear", "linear"),
    Costed("regression", "regression"),
    Costed("calid", "calid", region="heart"),
    Costed("calid, whole field", "calid"),
    Costed("calid-mean", "calid", dial=0.0),
    Costed("calid-sample", "calid", samples=1),
    Costed("paper", "calid", preset="paper", samples=1),
    Costed("pixel diffusion", "pixel-diffusion"),
)


def measure_cost(
    methods: Sequence[Costed] = METHODS,
    workloads: Sequence[Workload] = (HEART,),
    device: str = "auto",
    on_result: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Measure every method on every workload, one after the other.

    Parameters
    ----------
    device
        ``auto``, ``cpu`` or ``cuda``.
    on_result
        Called with the number of measurements done.

    Returns
    -------
    dict
        Ready for JSON: ``machine``, ``workloads``, and ``results``, each with ``method``,
        ``workload``, ``settings``, and what `calid.evaluation.cost_worker.measure` found.

    Raises
    ------
    CalidError
        If a measurement fails.
    """
    results: list[dict[str, Any]] = []
    for workload in workloads:
        for method in methods:
            found = _in_own_process(method, workload, device)
            facts = {"method": method.name, "kind": method.kind, "workload": workload.name}
            results.append(facts | {"settings": asdict(method)} | found)
            on_result(len(results))
    return {
        "machine": {
            "processor": cpu_model(),
            "cores": available_cpus(),
            "system": platform.system(),
        },
        "workloads": [asdict(w) | {"dense_slices": w.dense_slices} for w in workloads],
        "results": results,
    }


def _in_own_process(method: Costed, workload: Workload, device: str) -> dict[str, Any]:
    job = json.dumps({"method": asdict(method), "workload": asdict(workload), "device": device})
    command = [sys.executable, "-m", "calid.evaluation.cost_worker", job]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise CalidError(method.name, f"Its cost could not be measured: {last}", "Leave it out.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
