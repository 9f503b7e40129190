"""Untrained networks of a few channels, for tests of what happens around them."""

from __future__ import annotations

import dataclasses
from functools import cache

import torch

from calid.inference.model import Model
from calid.inference.runtime import choose_runtime
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.interpolator import DEFAULT, PAPER, LatentInterpolator

CHANNELS = 3


def tiny_model(preset: str = "default", precision: str = "auto") -> Model:
    return Model(*networks(preset), preset, runtime=choose_runtime("cpu", precision))


@cache
def networks(preset: str) -> tuple[Autoencoder, LatentInterpolator]:
    """Every parameter is moved off its start, where many layers do nothing."""
    generator = torch.Generator().manual_seed(0)
    config = {"default": DEFAULT, "paper": PAPER}[preset]
    sizes = {"channels": CHANNELS, "widths": (8, 16), "denoiser": (16, 8), "embedding": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = Autoencoder(AutoencoderConfig(CHANNELS, (8, 8), (1, 1), (1, 1)))
        interpolator = LatentInterpolator(dataclasses.replace(config, **sizes))  # type: ignore[arg-type]
    for network in (autoencoder, interpolator):
        for parameter in network.eval().requires_grad_(False).parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return autoencoder, interpolator
