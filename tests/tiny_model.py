"""Untrained networks of a few channels, for tests of what happens around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from calid.inference.model import Model, Preset
from calid.inference.options import Generation
from calid.inference.reconstruct import reconstruct
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.interpolator import DEFAULT, PAPER, LatentInterpolator
from calid.runtime import choose_runtime
from calid.stack import SliceStack, Volume

CHANNELS = 3


def reconstructed(
    model: Model,
    stack: SliceStack,
    uncertainty: bool = False,
    on_frame: Callable[[int], None] = lambda frame: None,
    **options: Any,
) -> Volume:
    """A stack by a model that generates everywhere: no heart is looked for."""
    wanted = Generation(**{"region": "whole", **options})
    return reconstruct(stack, wanted, model=model, uncertainty=uncertainty, on_frame=on_frame)


def tiny_model(preset: Preset = "default", precision: str = "auto") -> Model:
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
