"""Training state in one safetensors file: parameters, average, optimiser moments, step."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from calid.errors import WeightsError
from calid.io.atomic import atomic
from calid.training.ema import MovingAverage

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(
    path: Path, module: nn.Module, average: MovingAverage, optimizer: Optimizer, step: int
) -> None:
    """Write the state after ``step`` steps; the old file stays until the new one is whole."""
    tensors: dict[str, Tensor] = {}
    for key, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
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
            path, f"The checkpoint cannot be read ({error}).", "Train again without --resume."
        ) from error
    parameters = {k: p for k, p in module.named_parameters() if p.requires_grad}
    saved = {k.removeprefix("parameter/"): v for k, v in tensors.items() if "parameter/" in k}
    if {k: v.shape for k, v in saved.items()} != {k: p.shape for k, p in parameters.items()}:
        raise WeightsError(
            path,
            "The checkpoint belongs to a network of another shape.",
            "Resume with the preset it was started with, or train without --resume.",
        )
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(saved[key])
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
