"""Training of the learned baselines: the tuples, the budget and the loop of the presets."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from calid.baselines.learned import (
    Baseline,
    DiffusionAutoencoder,
    RegressionInterpolator,
    save_baseline,
)
from calid.diffusion import diffuse, variance_preserving
from calid.training.interpolator import TupleBatch, noise_times, tuple_task
from calid.training.loop import Task
from calid.training.tuples import Tuples

__all__ = ["DiffusionAutoencoderObjective", "RegressionObjective", "baseline_task"]


class RegressionObjective(nn.Module):
    """Squared error as of the default preset's mean, in units of the gate: ``|mu - z|^2 / g^2``."""

    def __init__(self, baseline: RegressionInterpolator) -> None:
        super().__init__()
        self.baseline = baseline

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss of a batch."""
        error = self.baseline(batch.neighbours) - batch.truth
        return {"loss": (error / batch.neighbours.gate).square().mean()}


class DiffusionAutoencoderObjective(nn.Module):
    """Predict the noise in a slice, given its own code: ``|eps_theta(x_t, t, e(z)) - eps|^2``.

    Neighbours are not seen (Preechakul et al., CVPR 2022).
    """

    def __init__(self, baseline: DiffusionAutoencoder) -> None:
        super().__init__()
        self.baseline = baseline

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss of a batch."""
        t = noise_times(batch.uniform)
        x = diffuse(batch.truth, batch.noise, t, variance_preserving)
        predicted = self.baseline.noise(x, t, self.baseline.semantic(batch.truth))
        return {"loss": (predicted - batch.noise).square().mean()}


def baseline_task(
    baseline: Baseline,
    train: Tuples,
    held_out: Tuples,
    weights: Path,
    batch: int,
    seed: int,
    device: torch.device,
) -> Task:
    """Everything the loop needs for a learned baseline; see `interpolator_task`."""
    objective: nn.Module
    if isinstance(baseline, RegressionInterpolator):
        objective = RegressionObjective(baseline)
    else:
        objective = DiffusionAutoencoderObjective(baseline)
    export = partial(save_baseline, baseline, weights)
    return tuple_task(objective, export, train, held_out, batch, seed, device)
