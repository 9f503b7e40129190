"""Gaussian paths from data to noise: ``x_t = alpha(t) x_0 + sigma(t) noise``, t in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Schedule", "rectified_flow", "time_grid", "variance_preserving"]

Schedule = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Times to ``(alpha, sigma)``, each of the times' shape."""


def rectified_flow(t: Tensor) -> tuple[Tensor, Tensor]:
    """Straight lines: ``alpha = 1 - t``, ``sigma = t`` (Liu et al., ICLR 2023)."""
    return 1 - t, t


def variance_preserving(t: Tensor) -> tuple[Tensor, Tensor]:
    """Continuous limit of the DDPM schedule (Song et al., ICLR 2021, eq. 32).

    ``beta`` rises linearly from 0.1 to 20, which in 1000 steps is 1e-4 to 0.02. At ``t = 1``
    alpha is 0.0066, not 0: a sampler that starts from pure noise is off by that share of the
    data's mean.
    """
    log_alpha = -0.25 * (20 - 0.1) * t.square() - 0.5 * 0.1 * t
    return log_alpha.exp(), torch.sqrt(-torch.expm1(2 * log_alpha))


def time_grid(steps: int, device: torch.device | None = None) -> Tensor:
    """``steps + 1`` equidistant times from 1 to 0.

    Raises
    ------
    ValueError
        If ``steps`` is not positive.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, not {steps}")
    return torch.linspace(1, 0, steps + 1, device=device)
