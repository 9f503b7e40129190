"""One measurement of `calid.evaluation.cost`: ``python -m calid.evaluation.cost_worker JOB``.

The job is JSON; so is the one line that it prints. Imports stand inside functions because
they are part of what is timed.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calid.evaluation.cost import Costed, Workload

if TYPE_CHECKING:
    from calid.stack import SliceStack

__all__ = ["measure"]

Run = Callable[["SliceStack"], float]
"""Makes all frames of a stack dense and returns the seconds it took, or would take."""

Reconstruct = Callable[["SliceStack"], object]


@dataclass(frozen=True)
class _Loaded:
    """A method that is ready.

    Parameters
    ----------
    run
        Times it.
    operations
        Counts its floating-point operations on a stack; of linear, which has no network, none.
    facts
        What else is to be said about it.
    """

    run: Run
    operations: Callable[[SliceStack], float | None]
    facts: dict[str, Any]


SEED = 1000


def measure(method: Costed, workload: Workload, device: str) -> dict[str, Any]:
    """Load a method, then time it on a phantom.

    Returns
    -------
    dict
        ``load_seconds``: imports, weights and a first tiny run. ``seconds``: all frames.
        ``loaded_mb``, ``peak_mb``: memory of the process after loading and at its peak, in
        10^6 bytes; of a film, with the timed frames alone. ``gpu`` and ``gpu_peak_mb``: model,
        and peak of tensors, or none. ``operations``: floating-point operations of the networks'
        convolutions and products for all frames, multiplications and additions counted apart;
        none if there is no network. ``extrapolated`` and ``basis``: whether the time follows
        from a part of the work, and from which. ``parameters``: of the network of
        ``pixel-diffusion``.
    """
    tiny = _heart(2, 32, 1)
    start = time.perf_counter()
    ready = _load(method, workload, device)
    facts = dict(ready.facts)
    ready.run(tiny)
    load_seconds, loaded = time.perf_counter() - start, peak_memory()
    stack = _heart(workload.slices, workload.side, workload.timed_frames)
    share = workload.frames / workload.timed_frames
    seconds = ready.run(stack) * share
    basis = facts.pop("basis", "")
    if not basis and workload.timed_frames < workload.frames:
        basis = f"{workload.timed_frames} of {workload.frames} frames were made."
    (gpu, gpu_peak), peak = _gpu(), peak_memory()
    operations = ready.operations(stack)
    return {
        "load_seconds": load_seconds,
        "seconds": seconds,
        "loaded_mb": loaded,
        "peak_mb": peak,
        "operations": None if operations is None else operations * share,
        "gpu": gpu,
        "gpu_peak_mb": gpu_peak,
        "extrapolated": bool(basis),
        "basis": basis,
        **facts,
    }


def peak_memory() -> float:
    """Largest resident size of this process so far, in 10^6 bytes.

    Linux hands ``ru_maxrss`` down from the parent, so that a large parent hides its child;
    the kernel's high-water mark of the address space starts anew.
    """
    status = Path("/proc/self/status")
    if status.exists():
        marks = [x for x in status.read_text().splitlines() if x.startswith("VmHWM:")]
        if marks:
            return int(marks[0].split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _load(method: Costed, workload: Workload, device: str) -> _Loaded:
    """How to run a method, and what is to be said about it."""
    if method.kind == "pixel-diffusion":
        return _pixel_diffusion(method, workload, device)
    if method.kind == "linear":
        return _Loaded(_timed(_linear(workload)), lambda stack: None, {})
    if method.kind == "regression":
        regression = _regression(workload, device)
        return _Loaded(_timed(regression), partial(_counted, regression), {})
    single = replace(method, samples=min(1, method.samples))

    def operations(stack: SliceStack) -> float:
        # Samples cost the same, one by one. Loaded anew: what was timed holds one model.
        return max(1, method.samples) * _counted(_calid(single, workload, device), stack)

    return _Loaded(_timed(_calid(method, workload, device)), operations, {})


def _timed(reconstruct: Reconstruct) -> Run:
    def run(stack: SliceStack) -> float:
        start = time.perf_counter()
        reconstruct(stack)
        return time.perf_counter() - start

    return run


def _counted(reconstruct: Reconstruct, stack: SliceStack) -> float:
    """Floating-point operations of one more run, which is not timed."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        reconstruct(stack)
    return float(counter.get_total_flops())


def _regression(workload: Workload, device: str) -> Reconstruct:
    """The deterministic baseline, untrained: its speed does not depend on its weights."""
    from calid.baselines.learned import new_baseline
    from calid.evaluation.methods import latent_method
    from calid.inference.densify import densify
    from calid.inference.model import load_model
    from calid.models.layers import channels_last

    model = load_model("default", device)
    network = channels_last(new_baseline("regression").eval().to(model.device))
    method = latent_method(model, network)
    return lambda stack: densify(stack, method, workload.factor)


def _linear(workload: Workload) -> Reconstruct:
    from calid.baselines.linear import linear
    from calid.inference.densify import densify

    return lambda stack: densify(stack, linear, workload.factor)


def _calid(method: Costed, workload: Workload, device: str) -> Reconstruct:
    from calid.inference.options import Generation
    from calid.inference.reconstruct import reconstruct

    wanted = Generation(
        factor=workload.factor,
        dial=method.dial,
        samples=method.samples,
        steps=method.steps,
        preset=method.preset,
        device=device,
        region=method.region,
    )
    model = wanted.load()
    return lambda stack: reconstruct(stack, wanted, model=model)


def _pixel_diffusion(method: Costed, workload: Workload, device: str) -> _Loaded:
    """Evaluations of the U-Net, extrapolated to those of a dense frame.

    Encoding inverts every acquired slice once, rendering makes every generated slice; the
    semantic encoder and all interpolation are left out, in its favour.
    """
    import torch

    from calid.evaluation.pixel_diffusion import CODE, PixelUNet
    from calid.models.layers import channels_last
    from calid.runtime import choose_runtime

    runtime = choose_runtime(device)
    place = runtime.device
    network = channels_last(PixelUNet(method.base).to(place).eval())
    generated = workload.dense_slices - workload.slices
    evaluations = workload.slices * method.encode_steps + generated * method.render_steps

    @torch.no_grad()
    def evaluate(stack: SliceStack) -> None:
        # The same for any image; the sides of a first tiny run are those of the smallest one.
        side = max(32 * 2, stack.shape[3] - stack.shape[3] % 32)
        shape = (method.batch, 1, side, side)
        x = torch.randn(shape, device=place).contiguous(memory_format=torch.channels_last)
        t, code = (torch.rand(method.batch, *n, device=place) for n in ((), (CODE,)))
        with runtime.autocast():
            network(x, t, code).sum().item()  # which waits for the device

    once = _timed(evaluate)

    def run(stack: SliceStack) -> float:
        times = [once(stack) for _ in range(method.timed_steps)]
        return statistics.median(times) * evaluations * stack.n_frames / method.batch

    def operations(stack: SliceStack) -> float:
        return _counted(evaluate, stack) * evaluations * stack.n_frames / method.batch

    basis = (
        f"{method.timed_steps} of {evaluations} evaluations of an untrained U-Net a frame were "
        f"made ({workload.slices} x {method.encode_steps} to encode, "
        f"{generated} x {method.render_steps} to render)."
    )
    parameters = sum(p.numel() for p in network.parameters())
    return _Loaded(run, operations, {"basis": basis, "parameters": parameters})


def _heart(slices: int, side: int, frames: int) -> SliceStack:
    from calid.data.phantom import HeartPhantom

    phases = tuple(n / frames for n in range(frames))
    return HeartPhantom(SEED).acquire(
        thickness=0.0, field_of_view=side * 1.5, slices=slices, phases=phases
    )


def _gpu() -> tuple[str | None, float | None]:
    """Model and peak memory of the GPU that was used, if one was."""
    torch = sys.modules.get("torch")  # not imported for this: linear has no use for it
    if torch is None or not torch.cuda.is_initialized():
        return None, None
    return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 1e6


def _main(job: str) -> None:
    given = json.loads(job)
    method, workload = Costed(**given["method"]), Workload(**given["workload"])
    print(json.dumps(measure(method, workload, given["device"])))


if __name__ == "__main__":
    _main(sys.argv[1])
