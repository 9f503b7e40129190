"""The methods of the benchmark by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calid.baselines.linear import linear
from calid.baselines.nearest import nearest
from calid.baselines.signature import Method
from calid.errors import UsageError
from calid.inference.model import Model, Sampling, load_model

__all__ = ["CEILING", "NAMES", "build_methods"]

CEILING = "autoencoder"
"""Row of the true slice through the autoencoder; it sees the truth and competes with no one."""

NAMES = ("nearest", "linear", "paper", "calid-mean", "calid-sample", "calid-average")
"""In the order of the tables: baselines, the paper preset, then the default preset as its
regressed mean, as one sample, and as the average of eight samples."""


def build_methods(names: Sequence[str], seed: int, device: str = "auto") -> dict[str, Method]:
    """Methods ready to be called, in the tables' order; networks are loaded once.

    Raises
    ------
    UsageError
        If a name is unknown.
    """
    unknown = [n for n in names if n not in NAMES]
    if unknown:
        raise UsageError(
            "--methods", f"{unknown[0]!r} is not a method.", f"Choose from {', '.join(NAMES)}."
        )
    methods: dict[str, Method] = {}
    default: Model | None = None
    for name in (n for n in NAMES if n in names):
        if name == "nearest":
            methods[name] = nearest
        elif name == "linear":
            methods[name] = linear
        elif name == "paper":
            methods[name] = _averaged(load_model("paper", device), Sampling(1, seed=seed))
        else:
            default = default or load_model("default", device)
            samples = {"calid-mean": 0, "calid-sample": 1, "calid-average": 8}[name]
            methods[name] = _averaged(default, Sampling(samples, seed=seed))
    return methods


def _averaged(model: Model, sampling: Sampling) -> Method:
    """A model as a benchmark method: its samples averaged in the image."""

    def method(
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
    ) -> NDArray[np.float32]:
        samples = model.between(images, positions, targets, spacing, sampling)
        return np.asarray(samples.mean(axis=0))

    return method
