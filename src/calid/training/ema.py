"""Exponential moving average of parameters, the weights that are released."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """Float32 shadow of a module's trainable parameters.

    Parameters
    ----------
    module
        Its current parameters are the start.
    decay
        Share of the shadow that survives a step, once the run is long enough.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: p.detach().clone() for k, p in _trainable(module)}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Fold in the parameters after step ``step``; the first steps are forgotten faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, parameter in _trainable(module):
            self.shadow[key].lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module with averaged parameters, for as long as the block lasts."""
        own = {k: p.detach().clone() for k, p in _trainable(module)}
        _copy(self.shadow, module)
        try:
            yield
        finally:
            _copy(own, module)


def _trainable(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((k, p) for k, p in module.named_parameters() if p.requires_grad)


@torch.no_grad()
def _copy(values: dict[str, Tensor], module: nn.Module) -> None:
    for key, parameter in _trainable(module):
        parameter.copy_(values[key])
