"""How every released network is trained: ``calid train NAME --data DIR`` does it again.

Data are ACDC's training stacks and films, Sunnybrook and the package's own phantoms; validation is
ACDC's. Splits are by subject. What a recipe does not name is the default of the code it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from calid.baselines.learned import DiffusionAutoencoderConfig, RegressionConfig
from calid.models.interpolator import DEFAULT, PAPER, InterpolatorConfig
from calid.training.tuples import TupleConfig

__all__ = [
    "AUTOENCODER",
    "BASELINES",
    "INTERPOLATORS",
    "BaselineRecipe",
    "InterpolatorRecipe",
    "Recipe",
]


@dataclass(frozen=True)
class Recipe:
    """One training.

    Parameters
    ----------
    steps, batch
        Optimiser steps, and examples in each, of all processes together: their product is what the
        network has seen.
    rate, warmup
        Peak of AdamW's learning rate, and the steps over which it rises to it; it falls linearly
        over the last 40 %.
    decay
        Of the moving average of the weights, which is what is released.
    phantoms
        Synthetic hearts beside the data.
    size
        Side of the crops in pixels of the images.
    seed
        Of data, noise and initial weights.
    """

    steps: int
    batch: int
    rate: float
    warmup: int
    decay: float
    phantoms: int
    size: int
    seed: int = 0


@dataclass(frozen=True)
class InterpolatorRecipe:
    """A preset: tau_1, tau_2 and denoiser, then the transport where there is one.

    Parameters
    ----------
    config
        What is trained.
    tuples
        What it is trained on.
    posterior, transport
        The trainings, one after the other, on the same tuples.
    """

    config: InterpolatorConfig
    tuples: TupleConfig
    posterior: Recipe
    transport: Recipe | None


@dataclass(frozen=True)
class BaselineRecipe:
    """A learned baseline.

    Parameters
    ----------
    config
        What is trained.
    tuples
        What it is trained on.
    training
        How.
    """

    config: RegressionConfig | DiffusionAutoencoderConfig
    tuples: TupleConfig
    training: Recipe


AUTOENCODER = Recipe(
    steps=2200, batch=32, rate=1.5e-3, warmup=175, decay=0.998, phantoms=60, size=80
)

STAGE_2 = Recipe(steps=15_600, batch=64, rate=1e-3, warmup=200, decay=0.999, phantoms=120, size=96)
"""A million tuples."""

INTERPOLATORS = {
    "default": InterpolatorRecipe(DEFAULT, TupleConfig(), STAGE_2, STAGE_2),
    "paper": InterpolatorRecipe(PAPER, TupleConfig(), STAGE_2, None),
}

BASELINES = {
    "regression": BaselineRecipe(RegressionConfig(), TupleConfig(), STAGE_2),
    "diffusion-autoencoder": BaselineRecipe(DiffusionAutoencoderConfig(), TupleConfig(), STAGE_2),
}
"""On the tuples of the presets, and as many of them."""
