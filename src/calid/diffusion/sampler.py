"""Samplers for any Gaussian path, given an estimate of the data at every time.

What each is exact for, with the exact denoiser of a Gaussian N(m, s^2) and ``alpha(1) = 0``
(the tests hold them to this at 1000, 100, 20, 4 and 1 steps):

==========  ===================  ====================================================
sampler     mean                 standard deviation
==========  ===================  ====================================================
ddim        exact at any count   exact for s = 0; first order in 1/steps otherwise,
                                 and 0 at one step, which returns the mean
heun        exact at any count   second order on the straight path; as ddim at one step
ancestral   exact at any count   exact at any count if the data's posterior variance is
                                 given; without it as DDPM, exact for s = 0
==========  ===================  ====================================================

`invert` then `ddim` returns the mean exactly, and a deviation from it to first order in 1/steps.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from calid.diffusion.schedule import Schedule, time_grid

__all__ = ["Denoise", "Velocity", "ancestral", "ddim", "ddim_step", "euler", "heun", "invert"]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``(x_t, t)`` to E[x_0 | x_t]; ``x_t`` is ``(batch, ...)``, ``t`` is ``(batch,)``."""


Velocity = Callable[[Tensor, Tensor], Tensor]
"""``(x_t, t)`` to E[x_1 - x_0 | x_t] on the straight path from a start ``x_0`` to data ``x_1``."""


def euler(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """From a start at ``t = 0`` to data at ``t = 1`` in equal steps: ``x += v(x, t) / steps``.

    Exact in the mean at any count for jointly Gaussian ends; first order in the deviation.

    Raises
    ------
    ValueError
        If ``steps`` is not positive.
    """
    for t in 1 - time_grid(steps, x.device)[:-1]:
        x = x + velocity(x, t.expand(len(x))) / steps
    return x


def ddim_step(x: Tensor, data: Tensor, t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    """Move from time ``t`` to ``s`` along the path through ``data`` (Song et al., 2021).

    On the rectified-flow path this is an Euler step of the probability flow. ``t`` and ``s``
    are scalars, ``t > 0``.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    return alpha_s * data + sigma_s / sigma_t * (x - alpha_t * data)


def ddim(denoise: Denoise, noise: Tensor, schedule: Schedule, times: Tensor) -> Tensor:
    """Deterministic first-order sampler; one evaluation a step.

    Parameters
    ----------
    noise
        Standard normal start, shape ``(batch, ...)``.
    times
        Decreasing, from 1 to 0; `time_grid` makes them.
    """
    x = noise
    for t, s in pairwise(times):
        x = ddim_step(x, denoise(x, t.expand(len(x))), t, s, schedule)
    return x


def invert(denoise: Denoise, data: Tensor, schedule: Schedule, times: Tensor) -> Tensor:
    """`ddim` backwards: the noise from which it would make ``data``; one evaluation a step but one.

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
            x = ddim_step(x, denoise(x, t.expand(len(x))), t, s, schedule)
        else:
            # Nothing is noise yet: the exact estimate is x itself, and no noise is left of it.
            x = schedule(s)[0] * x
    return x


def heun(denoise: Denoise, noise: Tensor, schedule: Schedule, times: Tensor) -> Tensor:
    """Deterministic second-order sampler; two evaluations a step, one in the last.

    The estimate at both ends of a step is averaged, then the step is taken again: Heun's rule
    in the form of an exponential integrator, so that it holds on every path.
    """
    x = noise
    for t, s in pairwise(times):
        data = denoise(x, t.expand(len(x)))
        ahead = ddim_step(x, data, t, s, schedule)
        if s > 0:
            data = (data + denoise(ahead, s.expand(len(x)))) / 2
            ahead = ddim_step(x, data, t, s, schedule)
        x = ahead
    return x


def ancestral(
    denoise: Denoise,
    noise: Tensor,
    schedule: Schedule,
    times: Tensor,
    draw: Callable[[], Tensor],
    variance: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Stochastic sampler: draws x_s from its Gaussian posterior at every step.

    Parameters
    ----------
    draw
        Returns fresh standard normal noise of ``noise``'s shape.
    variance
        Posterior variance Var[x_0 | x_t] at a scalar time (Bao et al., Analytic-DPM, ICLR
        2022). Without it the data estimate counts as certain, which is DDPM's small variance.
    """
    x = noise
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        # q(x_s | x_t, x_0), written without alpha_t / alpha_s going through zero at t = 1.
        ratio = alpha_t / alpha_s
        kept = ratio * sigma_s**2 / sigma_t**2
        pull = alpha_s - ratio * kept * alpha_s
        data = denoise(x, t.expand(len(x)))
        spread = sigma_s**2 * (1 - ratio * kept)
        if variance is not None:
            spread = spread + pull**2 * variance(t)
        x = kept * x + pull * data + torch.sqrt(spread) * draw()
    return x
