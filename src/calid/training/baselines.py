"""Objectives of the learned baselines: the tuples of stage 2, the same slices and budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from calid.baselines.diffusion_autoencoder import DiffusionAutoencoder
from calid.baselines.learned import Baseline, save_baseline
from calid.baselines.regression import RegressionInterpolator
from calid.diffusion.objective import diffuse
from calid.diffusion.schedule import variance_preserving
from calid.training.interpolator import TupleBatch, TupleObjective
from calid.training.latent_interpolator import noise_times

__all__ = ["DiffusionAutoencoderObjective", "RegressionObjective", "baseline_objective"]


class RegressionObjective(TupleObjective):
    """Squared error in units of what is to be expected, as the default preset's mean."""

    interpolator: RegressionInterpolator

    def __init__(self, interpolator: RegressionInterpolator) -> None:
        super().__init__()
        self.interpolator, self.per_side = interpolator, interpolator.reach

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss of a batch."""
        latents = batch.acquired.latents
        error = self.interpolator(latents, batch.context) - latents[batch.target]
        return {"loss": (error / batch.context.gate[:, None, None, None]).square().mean()}

    def save(self, path: Path, figures: Mapping[str, float]) -> None:
        """Write the interpolator."""
        save_baseline(self.interpolator, path, figures)


class DiffusionAutoencoderObjective(TupleObjective):
    """Predict the noise in a slice, given the code of that very slice; neighbours are not seen."""

    interpolator: DiffusionAutoencoder
    # At the network's own 100, inverting and rendering, validation takes longer than training.
    validation_steps = 20

    def __init__(self, interpolator: DiffusionAutoencoder) -> None:
        super().__init__()
        self.interpolator = interpolator

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss of a batch."""
        model, target = self.interpolator, batch.target
        data, images = batch.acquired.latents[target], batch.acquired.images[target]
        t = noise_times(batch.uniform)
        x = diffuse(data, batch.noise, t, variance_preserving)
        predicted = model.noise(x, t, model.code(data, images))
        return {"loss": (predicted - batch.noise).square().mean()}

    def save(self, path: Path, figures: Mapping[str, float]) -> None:
        """Write the autoencoder."""
        save_baseline(self.interpolator, path, figures)


def baseline_objective(model: Baseline) -> TupleObjective:
    """What a baseline is trained with."""
    if isinstance(model, RegressionInterpolator):
        return RegressionObjective(model)
    return DiffusionAutoencoderObjective(model)
