"""The training loop of every network, in one process or many (torchrun), and its checkpoints.

`fit` averages the weights; the average is released. It saves its state, so that a stopped run
resumes as if it had never stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import torch
from rich.progress import TextColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from calid.errors import UsageError, WeightsError
from calid.io.atomic import atomic
from calid.progress import progress_bar
from calid.runtime import choose_precision, computing
from calid.training.parallel import process_count, process_group, process_rank

__all__ = [
    "FitConfig",
    "MovingAverage",
    "Task",
    "fit",
    "learning_rate",
    "load_checkpoint",
    "save_checkpoint",
]


@dataclass(frozen=True)
class FitConfig:
    """How long and how fast to train.

    Parameters
    ----------
    steps
        Optimiser steps in all.
    rate
        Peak learning rate of AdamW.
    warmup
        Steps over which the rate rises to its peak.
    cooldown
        Last share of the steps, over which it falls linearly to zero.
    decay
        Of the moving average of the weights.
    save_every, validate_every
        Steps between checkpoints and between validations.
    """

    steps: int
    rate: float = 1e-3
    warmup: int = 200
    cooldown: float = 0.4
    decay: float = 0.998
    save_every: int = 250
    validate_every: int = 500


@dataclass(frozen=True)
class Task:
    """What is trained: everything that differs between the stages.

    Parameters
    ----------
    objective
        Module whose call on a batch returns its loss terms; ``"loss"`` is minimised.
    draw
        ``(step, rank)`` to a batch; pure, so that a resumed run sees the same data.
    validate
        Validation figures of the averaged weights.
    export
        Writes the averaged weights, with the latest figures, where users load them from.
    examples, unit
        Number of examples per step and process, and their name, for the progress display.
    """

    objective: nn.Module
    draw: Callable[[int, int], object]
    validate: Callable[[], Mapping[str, float]]
    export: Callable[[Mapping[str, float]], None]
    examples: int = 1
    unit: str = "steps"


def learning_rate(step: int, config: FitConfig) -> float:
    """Warm-up, plateau, linear cool-down to zero (Hägele et al., 2024)."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    fall = min(1.0, (config.steps - step) / max(1.0, config.cooldown * config.steps))
    return config.rate * min(rise, fall)


def fit(task: Task, folder: Path, config: FitConfig, device: torch.device, resume: bool) -> None:
    """Train to ``config.steps``, leaving checkpoint, log and weights in ``folder``.

    Networks compute in the precision in which the device is fast.

    Under torchrun every process calls this; gradients are averaged, rank 0 writes.

    Raises
    ------
    UsageError
        If a gradient is not finite. The last checkpoint is of the steps before.
    """
    with process_group(device) as parallel:
        _fit(task, folder, config, device, resume, parallel)


def _fit(
    task: Task,
    folder: Path,
    config: FitConfig,
    device: torch.device,
    resume: bool,
    parallel: bool,
) -> None:
    rank = process_rank()
    module = task.objective.to(device)
    trainable = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable, lr=config.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    average = MovingAverage(module, config.decay)
    checkpoint = folder / "checkpoint.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    if resume and checkpoint.exists():
        start = load_checkpoint(checkpoint, module, average, optimizer)
    replica: nn.Module = DistributedDataParallel(module) if parallel else module

    networks = partial(computing, device, choose_precision(device))
    loss = TextColumn("loss {task.fields[loss]:.4f}")
    pace = TextColumn(f"{{task.fields[pace]:.3g}} {task.unit}/s")
    with (
        progress_bar(loss, pace, disable=rank > 0) as bar,
        _Log(folder / "log.jsonl", start, rank) as log,
    ):
        job = bar.add_task(folder.name, total=config.steps, completed=start, loss=math.nan, pace=0)
        began = time.monotonic()
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            with networks():
                terms: dict[str, Tensor] = replica(task.draw(step, rank))
            optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
            norm = nn.utils.clip_grad_norm_(trainable, 1.0)
            if not norm.isfinite():
                # One such step would stay in the moving average for good.
                raise UsageError(
                    folder,
                    f"Training has diverged: the gradient of step {step + 1} is not finite.",
                    "Train with a lower rate; `resume` goes on from the last checkpoint.",
                )
            optimizer.step()
            average.update(module, step)
            if rank > 0:
                continue
            named = {**terms, "gradient": norm}
            # One transfer for all of them: each would wait for the GPU by itself.
            numbers = torch.stack([x.detach().float() for x in named.values()]).tolist()
            figures = dict(zip(named, numbers, strict=True))
            # Mean seconds per step since training started or resumed.
            seconds = max((time.monotonic() - began) / (step + 1 - start), 1e-9)
            per_second = round(task.examples * process_count() / seconds, 1)
            left = round((config.steps - step - 1) * seconds)
            log.write(
                {"step": step + 1, **figures, f"{task.unit}_per_second": per_second, "left": left}
            )
            bar.update(job, advance=1, loss=figures["loss"], pace=per_second)
            done = step + 1 == config.steps
            if done or (step + 1) % config.validate_every == 0:
                with average.applied(module), torch.no_grad(), networks():
                    validation = task.validate()
                    task.export({**validation, "step": step + 1})
                log.write({"step": step + 1, "validation": dict(validation)})
                shown = "  ".join(f"{k} {v:.4g}" for k, v in validation.items())
                bar.console.print(f"step {step + 1}: {shown}")
            # After the validation, so that a run killed during it repeats it.
            if done or (step + 1) % config.save_every == 0:
                save_checkpoint(checkpoint, module, average, optimizer, step + 1)


class MovingAverage:
    """Exponential moving average of a module's trainable parameters, in float32.

    Parameters
    ----------
    module
        Its current parameters are the start.
    decay
        Share of the average that survives a step, once the run is long enough.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: p.detach().clone() for k, p in _trainable(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Fold in the parameters after step ``step``; the first steps are forgotten faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, parameter in _trainable(module).items():
            self.shadow[key].lerp_(parameter, 1 - decay)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module with averaged parameters, for as long as the block lasts."""
        parameters = _trainable(module)
        own = {k: p.detach().clone() for k, p in parameters.items()}
        _copy(self.shadow, parameters)
        try:
            yield
        finally:
            _copy(own, parameters)


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {k: p for k, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    for key, parameter in parameters.items():
        parameter.copy_(values[key])


def save_checkpoint(
    path: Path, module: nn.Module, average: MovingAverage, optimizer: Optimizer, step: int
) -> None:
    """Write the state after ``step`` steps; the old file stays until the new one is whole."""
    tensors: dict[str, Tensor] = {}
    for key, parameter in _trainable(module).items():
        tensors[f"parameter/{key}"] = parameter.detach()
        tensors[f"average/{key}"] = average.shadow[key]
        for name, value in optimizer.state[parameter].items():
            tensors[f"optimizer/{name}/{key}"] = value
    contiguous = {k: v.contiguous().cpu() for k, v in tensors.items()}
    with atomic(path) as file:
        file.write(save(contiguous, {"step": str(step)}))


def load_checkpoint(
    path: Path, module: nn.Module, average: MovingAverage, optimizer: Optimizer
) -> int:
    """Restore what `save_checkpoint` wrote and return the number of steps done.

    Raises
    ------
    WeightsError
        If the file is damaged or belongs to another network.
    """
    try:
        with safe_open(path, "pt") as store:
            step = int(store.metadata()["step"])
            tensors = {key: store.get_tensor(key) for key in store.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError) as error:
        raise WeightsError(
            path, f"The checkpoint cannot be read ({error}).", "Train again without `resume`."
        ) from error
    parameters = _trainable(module)
    saved = {k.removeprefix("parameter/"): v for k, v in tensors.items() if "parameter/" in k}
    if {k: v.shape for k, v in saved.items()} != {k: p.shape for k, p in parameters.items()}:
        raise WeightsError(
            path,
            "The checkpoint belongs to a network of another shape.",
            "Resume with the preset it was started with, or train without `resume`.",
        )
    _copy(saved, parameters)
    for key, parameter in parameters.items():
        average.shadow[key].copy_(tensors[f"average/{key}"])
        # Fused AdamW walks raw memory: moments need the parameter's layout and device.
        optimizer.state[parameter] = {
            name.split("/")[1]: torch.empty_like(parameter).copy_(value)
            if value.ndim
            else value.to(parameter.device)
            for name, value in tensors.items()
            if name.startswith("optimizer/") and name.split("/", 2)[2] == key
        }
    return step


class _Log:
    """JSON lines of rank 0; on resume, lines of steps that will be done again are dropped."""

    def __init__(self, path: Path, start: int, rank: int) -> None:
        self.file: TextIO | None = None
        if rank > 0:
            return  # the file belongs to one process: another would replace it while it is open
        kept = path.read_text().splitlines() if path.exists() and start else []
        with atomic(path) as file:
            file.writelines(f"{line}\n".encode() for line in kept if _step(line) <= start)
        self.file = path.open("a")
        self.started = time.monotonic()

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def write(self, record: Mapping[str, object]) -> None:
        if self.file is None:
            return
        seconds = round(time.monotonic() - self.started, 2)
        self.file.write(json.dumps({**record, "seconds": seconds}) + "\n")
        self.file.flush()


def _step(line: str) -> float:
    """Step of a log line; one that a kill cut short belongs to no step."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
