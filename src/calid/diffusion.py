"""Diffusion without networks: paths, what a denoiser predicts, samplers. Pure functions.

A path goes from data at ``t = 0`` to noise at ``t = 1``: ``x_t = alpha(t) x_0 + sigma(t) noise``.
The transport's path runs the other way: its start at ``t = 0``, data at ``t = 1``.

With the exact denoiser of a Gaussian N(m, s^2) and ``alpha(1) = 0``, `ddim` and `adams_bashforth`
give its mean at any number of steps. The standard deviation is right to first order in 1/steps with
`ddim`, to second order with `adams_bashforth`, and 0 at one step, which returns the mean. `invert`,
then `ddim`, returns the mean exactly, and a deviation from it to first order. The tests hold them
to this at 1000, 100, 20, 4 and 1 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

__all__ = [
    "Estimate",
    "Predict",
    "Schedule",
    "Velocity",
    "adams_bashforth",
    "data_from_noise",
    "ddim",
    "diffuse",
    "invert",
    "logit_normal",
    "rectified_flow",
    "time_grid",
    "variance_preserving",
    "velocity",
]

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


def _column(t: Tensor, like: Tensor) -> Tensor:
    return t.view(-1, *[1] * (like.ndim - 1))


def diffuse(data: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """``x_t = alpha(t) data + sigma(t) noise``.

    Parameters
    ----------
    data, noise
        Shape ``(batch, ...)``.
    t
        Shape ``(batch,)``, in ``[0, 1]``.
    """
    alpha, sigma = (_column(v, data) for v in schedule(t))
    return alpha * data + sigma * noise


def data_from_noise(noise: Tensor, x: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """E[x_0 | x_t] from a prediction of the noise (Ho et al., NeurIPS 2020, eq. 15)."""
    alpha, sigma = (_column(v, x) for v in schedule(t))
    return (x - sigma * noise) / alpha


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """Time derivative of the rectified-flow path: ``noise - data``."""
    return noise - data


def logit_normal(normal: Tensor) -> Tensor:
    """Training times in (0, 1), dense in the middle (Esser et al., ICML 2024, eq. 19).

    Parameters
    ----------
    normal
        Standard normal numbers, any shape.
    """
    return torch.sigmoid(normal)


Predict = Callable[[Tensor, Tensor], Tensor]
"""A denoiser: ``(x_t, t)`` to what it was trained to predict; ``x_t`` is ``(batch, ...)``, ``t`` is
``(batch,)``."""

Estimate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(prediction, x_t, t)`` to E[x_0 | x_t]."""


Velocity = Callable[[Tensor, Tensor], Tensor]
"""``(x_t, t)`` to E[x_1 - x_0 | x_t] on the straight path between two ends."""


def adams_bashforth(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Solve ``dx/dt = v(x, t)`` along ``times`` by the two-step method of Adams and Bashforth.

    Of second order, with one evaluation a step: ``v`` is extrapolated linearly from the last two.
    The first step is Euler's.

    Parameters
    ----------
    velocity
        Of a straight path: ``(x_t, t)`` to the expected difference of its ends.
    x
        At the first time, shape ``(batch, ...)``.
    times
        Rising or falling, two or more.
    """
    slope: Tensor | float = 0.0
    last: Tensor | None = None
    for number, (t, s) in enumerate(pairwise(times)):
        now = velocity(x, t.expand(len(x)))
        if last is not None:
            slope = (now - last) / (t - times[number - 1])
        x, last = x + (s - t) * (now + 0.5 * (s - t) * slope), now
    return x


def ddim_step(x: Tensor, data: Tensor, t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    """Move from time ``t`` to ``s`` along the path through ``data`` (Song et al., 2021).

    On the rectified-flow path this is an Euler step of the probability flow. ``t`` and ``s``
    are scalars, ``t > 0``.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    return alpha_s * data + sigma_s / sigma_t * (x - alpha_t * data)


def ddim(
    predict: Predict, estimate: Estimate, noise: Tensor, schedule: Schedule, times: Tensor
) -> Tensor:
    """Deterministic first-order sampler (Song et al., ICLR 2021); one evaluation a step.

    Parameters
    ----------
    predict, estimate
        The denoiser, and what its prediction says of the data.
    noise
        Standard normal start, shape ``(batch, ...)``.
    times
        Decreasing, from 1 to 0; `time_grid` makes them.
    """
    x = noise
    for t, s in pairwise(times):
        now = t.expand(len(x))
        x = ddim_step(x, estimate(predict(x, now), x, now), t, s, schedule)
    return x


def invert(
    predict: Predict, estimate: Estimate, data: Tensor, schedule: Schedule, times: Tensor
) -> Tensor:
    """`ddim` backwards: the noise from which it would make ``data``.

    One evaluation a step, none in the first.

    The stochastic encoder of diffusion autoencoders (Preechakul et al., CVPR 2022, eq. 8).

    Parameters
    ----------
    data
        Shape ``(batch, ...)``.
    times
        Increasing, from 0 to 1: those of `time_grid`, flipped.
    """
    x = data
    for t, s in pairwise(times):
        if t > 0:
            now = t.expand(len(x))
            x = ddim_step(x, estimate(predict(x, now), x, now), t, s, schedule)
        else:
            # Nothing is noise yet: the exact estimate is x itself, and no noise is left of it.
            x = schedule(s)[0] * x
    return x
