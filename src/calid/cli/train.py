"""`calid train`: the two stages, on folders of stacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

__all__ = ["TrainAutoencoder", "TrainInterpolator"]


@dataclass(frozen=True, kw_only=True)
class _Training:
    """Options that both stages share."""

    data: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Folder of NIfTI stacks to train on, searched recursively. Repeat for more folders."""
    out: Path
    """Folder for checkpoint, log, weights and the cache of the data."""
    validation: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Folders of held-out stacks. Without any, a tenth of the subjects is held out."""
    phantoms: int = 0
    """Number of synthetic hearts to add to the training data."""
    steps: int = 20_000
    """Optimiser steps in all."""
    rate: float = 1e-3
    """Peak learning rate."""
    size: int = 128
    """Side of the training crop in pixels of 1.5 mm, a multiple of 16."""
    seed: int = 0
    """Seed of data, noise and initial weights."""
    resume: bool = False
    """Go on from the last checkpoint in OUT."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to torch."""


@dataclass(frozen=True, kw_only=True)
class TrainAutoencoder(_Training):
    """Stage 1: learn the latent space from single slices. No labels are needed."""

    batch: int = 8
    """Slices a step, even."""

    def run(self) -> None:
        """Train and leave OUT/autoencoder.safetensors."""
        import torch

        from calid.inference.runtime import choose_device
        from calid.models.autoencoder import Autoencoder, AutoencoderConfig
        from calid.training.autoencoder import autoencoder_task
        from calid.training.loop import FitConfig, fit
        from calid.training.setup import gather_films

        device = choose_device(self.device)
        torch.manual_seed(self.seed)
        torch.set_num_threads(self.threads or torch.get_num_threads())
        train, held_out = gather_films(self.data, self.validation, self.phantoms, self.out)
        task = autoencoder_task(
            Autoencoder(AutoencoderConfig()).to(device),
            train,
            held_out,
            weights=self.out / "autoencoder.safetensors",
            size=self.size,
            batch=self.batch,
            seed=self.seed,
            device=device,
        )
        fit(task, self.out, FitConfig(steps=self.steps, rate=self.rate), device, self.resume)


@dataclass(frozen=True, kw_only=True)
class TrainInterpolator(_Training):
    """Stage 2: learn how one slice becomes the next, in the latent space of stage 1."""

    autoencoder: Path | None = None
    """Weights of stage 1. Without, those of the package."""
    preset: Literal["default", "paper"] = "default"
    """Which model to train."""
    stacks: int = 6
    """Stacks a step."""
    targets: int = 6
    """Hidden slices to reconstruct per stack and step."""

    def run(self) -> None:
        """Train and leave OUT/PRESET.safetensors."""
        import torch

        from calid.inference.runtime import choose_device
        from calid.models.interpolator import Interpolator
        from calid.models.store import load_autoencoder, new_interpolator
        from calid.training.interpolator import (
            NoiseObjective,
            RefineObjective,
            interpolator_task,
        )
        from calid.training.loop import FitConfig, fit
        from calid.training.setup import gather_films
        from calid.weights import weights_path

        device = choose_device(self.device)
        torch.manual_seed(self.seed)
        torch.set_num_threads(self.threads or torch.get_num_threads())
        train, held_out = gather_films(self.data, self.validation, self.phantoms, self.out)
        model = new_interpolator(self.preset)
        objective = (
            RefineObjective(model) if isinstance(model, Interpolator) else NoiseObjective(model)
        )
        task = interpolator_task(
            objective.to(device),
            load_autoencoder(self.autoencoder or weights_path("autoencoder")).to(device),
            train,
            held_out,
            weights=self.out / f"{self.preset}.safetensors",
            size=self.size,
            stacks=self.stacks,
            targets=self.targets,
            seed=self.seed,
            device=device,
        )
        fit(task, self.out, FitConfig(steps=self.steps, rate=self.rate), device, self.resume)
