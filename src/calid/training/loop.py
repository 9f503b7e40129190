"""The training loop: the same for both stages, one process or many (torchrun)."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import torch
from rich.progress import TextColumn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from calid.errors import UsageError
from calid.io.atomic import atomic
from calid.progress import progress_bar
from calid.runtime import choose_precision, computing
from calid.training.checkpoint import load_checkpoint, save_checkpoint
from calid.training.ema import MovingAverage
from calid.training.parallel import process_count, process_group, process_rank

__all__ = ["FitConfig", "Task", "fit", "learning_rate"]


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
    batch
        ``(step, rank)`` to a batch; pure, so that a resumed run sees the same data.
    validate
        Figures of the objective with averaged weights.
    export
        Writes the averaged weights, with the latest figures, where users load them from.
    examples, unit
        How many of what a process sees in a step, for the pace that is shown and logged.
    """

    objective: nn.Module
    batch: Callable[[int, int], object]
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
        clock = _Pace(task.examples * process_count())
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            with networks():
                terms: dict[str, Tensor] = replica(task.batch(step, rank))
            optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
            norm = nn.utils.clip_grad_norm_(trainable, 1.0)
            if not norm.isfinite():
                # One such step would stay in the moving average for good.
                raise UsageError(
                    folder,
                    f"Training has diverged: the gradient of step {step + 1} is not finite.",
                    "Train with a lower rate; --resume goes on from the last checkpoint.",
                )
            optimizer.step()
            average.update(module, step)
            if rank > 0:
                continue
            named = {**terms, "gradient": norm}
            # One transfer for all of them: each would wait for the GPU by itself.
            numbers = torch.stack([x.detach().float() for x in named.values()]).tolist()
            figures = dict(zip(named, numbers, strict=True))
            per_second, left = clock.after(step + 1 - start, config.steps - step - 1)
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
            # After the validation: a run that is killed within it does it again.
            if done or (step + 1) % config.save_every == 0:
                save_checkpoint(checkpoint, module, average, optimizer, step + 1)


class _Pace:
    """Examples a second since the training was started or resumed, and the seconds left."""

    def __init__(self, examples: int) -> None:
        self.examples, self.started = examples, time.monotonic()

    def after(self, done: int, left: int) -> tuple[float, int]:
        """After so many steps, with so many left."""
        seconds = (time.monotonic() - self.started) / done
        return round(self.examples / max(seconds, 1e-9), 1), round(left * seconds)


class _Log:
    """JSON lines of rank 0; on resume, lines of steps that will be done again are dropped."""

    def __init__(self, path: Path, start: int, rank: int) -> None:
        self.file: TextIO | None = None
        if rank > 0:
            return  # the file belongs to one process: another would replace it under its hands
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
