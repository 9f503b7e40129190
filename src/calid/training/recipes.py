"""The recipe of every network: ``calid train NAME --data DIR`` follows it.

Training data are ACDC's training stacks and films, Sunnybrook and the package's own phantoms;
validation data are ACDC's. Splits are by subject. What a recipe does not name is a default of the
code that it runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from calid.baselines.learned import DiffusionAutoencoderConfig, RegressionConfig
from calid.models.interpolator import DEFAULT, PAPER, InterpolatorConfig
from calid.training.tuples import TupleConfig

__all__ = ["AUTOENCODER", "NETWORKS", "STAGE_2", "Recipe", "Stage2Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One training.

    Parameters
    ----------
    steps, batch
        Optimiser steps, and examples per step over all processes. Their product is the number of
        examples that the network has seen.
    rate, warmup
        Peak of AdamW's learning rate, and the steps in which the rate rises to it. The rate falls
        linearly over the last 40 %.
    decay
        Decay of the moving average of the weights; the average is released.
    phantoms
        Number of synthetic hearts added to the data.
    size
        Side of the crops in pixels of the images.
    seed
        Seed of data, noise and initial weights.
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
class Stage2Recipe:
    """A network that learns from tuples of latents.

    Parameters
    ----------
    config
        What is trained: a preset, or a learned baseline.
    training
        How. Of a preset: tau_1, tau_2 and denoiser.
    transport
        The training of a preset's transport, if it has one, which follows on the same tuples.
    films
        The training of tau_1's mixing of frames, if it mixes any, which comes last.
    tuples
        What it is trained on.
    """

    config: InterpolatorConfig | RegressionConfig | DiffusionAutoencoderConfig
    training: Recipe
    transport: Recipe | None = None
    films: Recipe | None = None
    tuples: TupleConfig = field(default_factory=TupleConfig)


AUTOENCODER = Recipe(
    steps=2200, batch=32, rate=1.5e-3, warmup=175, decay=0.998, phantoms=60, size=80
)

STAGE_2 = Recipe(steps=15_600, batch=64, rate=1e-3, warmup=200, decay=0.999, phantoms=120, size=96)
"""A million tuples."""

FILMS = Recipe(steps=1000, batch=64, rate=1e-3, warmup=50, decay=0.99, phantoms=120, size=96)

NETWORKS = {
    "default": Stage2Recipe(DEFAULT, STAGE_2, STAGE_2, FILMS),
    "paper": Stage2Recipe(PAPER, STAGE_2),
    "regression": Stage2Recipe(RegressionConfig(), STAGE_2),
    "diffusion-autoencoder": Stage2Recipe(DiffusionAutoencoderConfig(), STAGE_2),
}
"""Of stage 2: the presets, and the learned baselines on the same tuples."""
