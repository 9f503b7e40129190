"""What a denoiser is trained to predict, and how its output becomes an estimate of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from calid.diffusion.schedule import Schedule

__all__ = ["data_from_noise", "data_from_velocity", "diffuse", "logit_normal", "velocity"]


def _column(t: Tensor, like: Tensor) -> Tensor:
    return t.view(-1, *[1] * (like.ndim - 1))


def diffuse(data: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """``x_t``, the data after time ``t``.

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


def data_from_velocity(speed: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """E[x_0 | x_t] from a prediction of the velocity, on the rectified-flow path."""
    return x - _column(t, x) * speed


def logit_normal(normal: Tensor, location: float = 0.0, scale: float = 1.0) -> Tensor:
    """Training times in (0, 1), dense in the middle (Esser et al., ICML 2024, eq. 19).

    Parameters
    ----------
    normal
        Standard normal numbers, any shape.
    """
    return torch.sigmoid(location + scale * normal)
