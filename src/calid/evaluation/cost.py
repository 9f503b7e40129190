"""What methods cost: time and memory to make a heart or a film dense, side by side.

Every method is measured in a process of its own, ``python -m calid.evaluation.cost JOB``, so that
peaks of memory and warm caches do not mix. The job is JSON; so is the one line that the process
prints. Imports stand inside functions because they are part of what is timed.
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from calid.errors import CalidError
from calid.inference.machine import available_cpus, cpu_model

if TYPE_CHECKING:
    from calid.stack import SliceStack

__all__ = [
    "FILM",
    "FILM_METHODS",
    "HEART",
    "METHODS",
    "Costed",
    "Workload",
    "cost_table",
    "measure",
    "measure_cost",
    "peak_memory",
]

SEED = 1000

STEPS = 100
"""Evaluations of pixel diffusion per slice, acquired (to encode it) or generated (to render it)."""

TIMED_STEPS = 2
"""How many of these are really made."""


@dataclass(frozen=True)
class Workload:
    """A phantom with a full field of view, which methods make dense.

    Parameters
    ----------
    name
        Name of its table.
    slices
        Number of acquired slices.
    factor
        Steps into which every gap is cut: 10 slices and a factor of 7 give 64.
    side
        Side of the square images in pixels of 1.5 mm, a multiple of 32.
    frames
        Number of frames in one heartbeat.
    """

    name: str = "heart"
    slices: int = 10
    factor: int = 7
    side: int = 256
    frames: int = 1

    @property
    def dense_slices(self) -> int:
        """Slices of the dense heart, acquired ones included."""
        return (self.slices - 1) * self.factor + 1


@dataclass(frozen=True)
class Costed:
    """A method with its settings.

    Parameters
    ----------
    name, kind
        Name of its table row, and the kind of method.
    preset, dial, samples
        Options of ``calid``; None takes the dial that is stored with the weights.
    region
        Option of ``calid``: run networks around the heart (finding it is timed too) or everywhere.
    base
        Channels of the U-Net of ``pixel-diffusion``.
    """

    name: str
    kind: Literal["linear", "regression", "calid", "pixel-diffusion"]
    preset: Literal["default", "paper"] = "default"
    dial: float | None = None
    samples: int = 0
    region: Literal["heart", "whole"] = "whole"
    base: int = 128


HEART = Workload()

FILM = Workload("film", frames=30)

FILM_METHODS = (
    Costed("linear", "linear"),
    Costed("regression", "regression"),
    Costed("calid", "calid", region="heart"),
    Costed("calid, whole field", "calid"),
)
"""Those that finish a whole film in minutes on two cores."""

METHODS = (
    *FILM_METHODS,
    Costed("calid-mean", "calid", dial=0.0),
    Costed("calid-sample", "calid", samples=1),
    Costed("paper", "calid", preset="paper", samples=1),
    Costed("pixel diffusion", "pixel-diffusion"),
)


def measure_cost(
    methods: Sequence[Costed] = METHODS,
    workload: Workload = HEART,
    device: str = "auto",
    on_result: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Measure methods one after the other.

    Parameters
    ----------
    device
        ``auto``, ``cpu`` or ``cuda``.
    on_result
        Called with the number of measurements done.

    Returns
    -------
    dict
        Ready for JSON: ``machine``, ``workloads`` (one), and ``results``, each with ``method``,
        ``workload``, ``settings``, and what `measure` found.

    Raises
    ------
    CalidError
        If a measurement fails.
    """
    results: list[dict[str, Any]] = []
    for method in methods:
        settings = asdict(method)
        job = {"method": settings, "workload": asdict(workload), "device": device}
        command = [sys.executable, "-m", "calid.evaluation.cost", json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise CalidError(
                method.name, f"Its cost could not be measured: {last}", "Leave it out."
            )
        found = json.loads(done.stdout.splitlines()[-1])
        facts = {"method": method.name, "kind": method.kind, "workload": workload.name}
        results.append(facts | {"settings": settings} | found)
        on_result(len(results))
    return {
        "machine": {
            "processor": cpu_model(),
            "cores": available_cpus(),
            "system": platform.system(),
        },
        "workloads": [asdict(workload) | {"dense_slices": workload.dense_slices}],
        "results": results,
    }


def cost_table(costs: Mapping[str, Any]) -> str:
    """The outcome of `measure_cost` as Markdown, ratios first.

    Times alone say more about the machine than about the method.
    """
    from calid.evaluation.tables import markdown_table

    (work,), machine, rows = costs["workloads"], costs["machine"], costs["results"]
    slow, fast = (
        next((r for r in rows if r["kind"] == kind), None) for kind in ("pixel-diffusion", "linear")
    )
    gpus = sorted({r["gpu"] for r in rows if r["gpu"]})
    place = ", ".join([machine["processor"], f"{machine['cores']} core(s)", *gpus])
    head = [
        *("method", "speed, pixel diffusion = 1", "operations, pixel diffusion = 1"),
        *("memory, pixel diffusion = 1", "time, linear = 1", "time s", "10^12 operations"),
        *("loading s", "peak MB", "GPU peak MB"),
    ]
    cells = [
        [
            row["method"],
            _ratio(slow, row, "seconds"),
            _ratio(row, slow, "operations"),
            _ratio(row, slow, "peak_mb"),
            _ratio(row, fast, "seconds"),
            f"{row['seconds']:.3g}{' *' if row['extrapolated'] else ''}",
            "" if row["operations"] is None else f"{row['operations'] / 1e12:.3g}",
            f"{row['load_seconds']:.3g}",
            f"{row['peak_mb']:.0f}",
            "" if row["gpu_peak_mb"] is None else f"{row['gpu_peak_mb']:.0f}",
        ]
        for row in rows
    ]
    notes = [f"\\* {r['method']}: {r['basis']}" for r in rows if r["extrapolated"]]
    if slow is None:
        for line in (head, *cells):
            del line[1:4]
    frames = f"{work['frames']} frames, " if work["frames"] > 1 else ""
    lines = [
        f"{work['name']}: {work['slices']} slices to {work['dense_slices']}, {frames}"
        f"{work['side']} x {work['side']} pixels, on {place}.",
        "",
        *markdown_table(head, cells),
        "",
    ]
    return "\n".join([*lines, *notes, ""] if notes else lines)


def _ratio(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, key: str) -> str:
    return "" if a is None or b is None or not a[key] or not b[key] else f"{a[key] / b[key]:.3g}"


Run = Callable[["SliceStack"], object]


@dataclass(frozen=True)
class _Ready:
    """A method that is loaded.

    Parameters
    ----------
    run
        The run that is timed.
    counted
        A run whose floating-point operations are counted; None if there is no network.
    parts
        Number of ``counted`` runs in the whole work.
    basis
        Which part of the work the time is extrapolated from, or empty. If it is extrapolated,
        the whole work is ``parts`` times ``run``.
    """

    run: Run
    counted: Run | None = None
    parts: int = 1
    basis: str = ""


def measure(method: Costed, workload: Workload, device: str) -> dict[str, Any]:
    """Load a method, then time it on a phantom.

    Returns
    -------
    dict
        ``load_seconds``: imports, weights and a first tiny run. ``seconds``: the whole workload.
        ``loaded_mb``, ``peak_mb``: memory of the process after loading and at its peak, in
        10^6 bytes. ``gpu`` and ``gpu_peak_mb``: model, and peak of tensors, or none.
        ``operations``: floating-point operations of the networks' convolutions and products,
        multiplications and additions counted apart; none if there is no network.
        ``extrapolated`` and ``basis``: whether the time follows from a part of the work, and
        from which.
    """
    tiny = _heart(2, 32)
    start = time.perf_counter()
    ready = _load(method, workload, device)
    ready.run(tiny)
    load_seconds, loaded = time.perf_counter() - start, peak_memory()
    stack, times = _heart(workload.slices, workload.side, workload.frames), []
    for _ in range(TIMED_STEPS if ready.basis else 1):
        start = time.perf_counter()
        ready.run(stack)
        times.append(time.perf_counter() - start)
    peak, gpu, gpu_peak = peak_memory(), None, None
    torch = sys.modules.get("torch")  # not imported here: linear does not need it
    if torch is not None and torch.cuda.is_initialized():
        gpu, gpu_peak = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 1e6
    operations = None
    if ready.counted is not None:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:  # of one more run, which is not timed
            ready.counted(stack)
        operations = float(counter.get_total_flops()) * ready.parts
    return {
        "load_seconds": load_seconds,
        "seconds": statistics.median(times) * (ready.parts if ready.basis else 1),
        "loaded_mb": loaded,
        "peak_mb": peak,
        "operations": operations,
        "gpu": gpu,
        "gpu_peak_mb": gpu_peak,
        "extrapolated": bool(ready.basis),
        "basis": ready.basis,
    }


def peak_memory() -> float:
    """Largest resident size of this process so far, in 10^6 bytes.

    On Linux a child inherits ``ru_maxrss`` from its parent, so that a large parent hides it;
    the kernel's high-water mark of the address space starts anew.
    """
    status = Path("/proc/self/status")
    if status.exists():
        marks = [x for x in status.read_text().splitlines() if x.startswith("VmHWM:")]
        if marks:
            return int(marks[0].split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _heart(slices: int, side: int, frames: int = 1) -> SliceStack:
    from calid.data.phantom import HeartPhantom

    phases = [frame / frames for frame in range(frames)]
    return HeartPhantom(SEED).acquire(
        thickness=0.0, field_of_view=side * 1.5, slices=slices, phases=phases
    )


def _load(method: Costed, workload: Workload, device: str) -> _Ready:
    if method.kind == "pixel-diffusion":
        return _pixel_diffusion(method, workload, device)
    from calid.inference.densify import densify

    if method.kind == "linear":
        from calid.baselines.rules import linear

        return _Ready(lambda stack: densify(stack, linear, workload.factor))
    if method.kind == "regression":
        from calid.baselines.learned import new_baseline
        from calid.evaluation.methods import latent_method
        from calid.inference.model import load_model
        from calid.models.layers import channels_last

        model = load_model("default", device)
        # Untrained: its speed does not depend on its weights.
        network = channels_last(new_baseline("regression").eval().to(model.device))
        regression = latent_method(model, network)

        def regress(stack: SliceStack) -> object:
            return densify(stack, regression, workload.factor)

        return _Ready(regress, counted=regress)
    from calid.inference.model import model_for
    from calid.inference.options import Generation
    from calid.inference.reconstruct import reconstruct

    wanted = Generation(
        factor=workload.factor,
        dial=method.dial,
        samples=method.samples,
        preset=method.preset,
        device=device,
        region=method.region,
    )
    run = partial(reconstruct, wanted=wanted, model=model_for(wanted))
    # Samples cost the same, one by one: the operations of one are counted.
    single = replace(wanted, samples=min(1, method.samples))
    return _Ready(run, counted=partial(run, wanted=single), parts=max(1, method.samples))


def _pixel_diffusion(method: Costed, workload: Workload, device: str) -> _Ready:
    """A few evaluations of the U-Net, to be extrapolated to a dense heart.

    Encoding inverts every acquired slice once, and rendering makes every generated slice. The
    semantic encoder and all interpolation are not timed, which favours this method.
    """
    import torch

    from calid.evaluation.pixel_diffusion import CODE, PixelUNet
    from calid.models.layers import channels_last
    from calid.runtime import choose_runtime

    runtime = choose_runtime(device)
    place = runtime.device
    network = channels_last(PixelUNet(method.base).to(place).eval())
    generated = workload.dense_slices - workload.slices
    evaluations = workload.dense_slices * STEPS

    @torch.no_grad()
    def evaluate(stack: SliceStack) -> None:
        # The same for any image; the sides of a first tiny run are those of the smallest one.
        side = max(32 * 2, stack.shape[3] - stack.shape[3] % 32)
        x = torch.randn(1, 1, side, side, device=place)
        x = x.contiguous(memory_format=torch.channels_last)
        t, code = (torch.rand(1, *n, device=place) for n in ((), (CODE,)))
        with runtime.autocast():
            network(x, t, code).sum().item()  # which waits for the device

    basis = (
        f"{TIMED_STEPS} of {evaluations} evaluations of an untrained U-Net were made "
        f"({workload.slices} x {STEPS} to encode, {generated} x {STEPS} to render)."
    )
    return _Ready(evaluate, evaluate, evaluations, basis)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    costed, workload = Costed(**given["method"]), Workload(**given["workload"])
    print(json.dumps(measure(costed, workload, given["device"])))
