"""The learned baselines by name: make, write, read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from calid.baselines.diffusion_autoencoder import DiffusionAutoencoder, DiffusionAutoencoderConfig
from calid.baselines.regression import RegressionConfig, RegressionInterpolator
from calid.errors import UsageError
from calid.models.store import load_network, save_tensors

__all__ = ["LEARNED", "Baseline", "load_baseline", "new_baseline", "save_baseline"]

LEARNED = ("regression", "diffusion-autoencoder")

Baseline = RegressionInterpolator | DiffusionAutoencoder


def new_baseline(name: str, **sizes: Any) -> Baseline:
    """An untrained baseline; ``sizes`` are the fields of its configuration.

    Raises
    ------
    UsageError
        If there is no such baseline.
    """
    if name == "regression":
        return RegressionInterpolator(RegressionConfig(**sizes))
    if name == "diffusion-autoencoder":
        return DiffusionAutoencoder(DiffusionAutoencoderConfig(**sizes))
    raise UsageError(
        name, "There is no learned baseline of this name.", f"Choose from {', '.join(LEARNED)}."
    )


def save_baseline(model: Baseline, path: Path, figures: Mapping[str, float]) -> None:
    """Write a baseline with its configuration and validation figures."""
    regression, autoencoder = LEARNED
    kind = regression if isinstance(model, RegressionInterpolator) else autoencoder
    save_tensors(model, kind, model.config, figures, path)


def load_baseline(path: Path, name: str) -> Baseline:
    """Read a baseline, in evaluation mode, on the CPU.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or holds another network.
    """
    return load_network(path, name, partial(new_baseline, name))
