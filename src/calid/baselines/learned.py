"""The learned baselines in the latent space of stage 1: regression and diffusion autoencoder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.baselines.latent_rules import slerp
from calid.diffusion import ddim, invert, time_grid, variance_preserving
from calid.errors import UsageError
from calid.models.interpolator import FEATURES, PERIOD, Neighbours, clipped_data
from calid.models.layers import ChannelNorm, ResidualBlock, conv, fourier_features
from calid.models.store import load_network, save_tensors
from calid.models.unet import UNet

__all__ = [
    "LEARNED",
    "Baseline",
    "CodeEncoder",
    "DiffusionAutoencoder",
    "DiffusionAutoencoderConfig",
    "RegressionConfig",
    "RegressionInterpolator",
    "load_baseline",
    "new_baseline",
    "save_baseline",
]

LEARNED = ("regression", "diffusion-autoencoder")


@dataclass(frozen=True)
class RegressionConfig:
    """Sizes of the regression; a pass costs as much as one of the default preset's tau_1.

    Parameters
    ----------
    channels
        Of the latent.
    widths
        Channels of the U-Net at each level.
    embedding
        Size of the vector that the distances become.
    """

    channels: int = 12
    widths: tuple[int, ...] = (96, 160, 224)
    embedding: int = 128


class RegressionInterpolator(nn.Module):
    """A `LatentRule`: one pass of a U-Net, without registration or sampling.

    The answer is ``b + g f(c)`` for the straight line ``b`` between the adjacent latents, the gate
    ``g`` and the U-Net ``f`` of the distances and two slices on either side. At an acquired
    position it is the acquired latent; untrained, it is that of `LatentLinear`.
    """

    default_steps = 1

    def __init__(self, config: RegressionConfig) -> None:
        super().__init__()
        self.config = config
        size = config.embedding
        self.place = nn.Sequential(
            nn.Linear(4 * FEATURES + 2, size), nn.SiLU(), nn.Linear(size, size)
        )
        self.unet = UNet(4 * config.channels, config.channels, config.widths, size)

    def forward(self, neighbours: Neighbours, steps: int = 1) -> Tensor:
        """Estimate of the conditional mean ``(targets, channels, h, w)``; see `LatentRule`."""
        distance = neighbours.distance
        # Whether there are next slices: a missing one is not a grey one.
        there = (distance[:, 2:] != 0).to(distance.dtype)
        features = fourier_features(distance, FEATURES, PERIOD).flatten(1)
        embedding = F.silu(self.place(torch.cat([features, there], 1)))
        seen = torch.cat([neighbours.adjacent, neighbours.beyond], 1).flatten(1, 2)
        correction: Tensor = self.unet(
            seen.contiguous(memory_format=torch.channels_last), embedding
        )[0]
        return neighbours.weighted(neighbours.adjacent) + neighbours.gate * correction


class CodeEncoder(nn.Module):
    """Semantic code of a map of any size: strided residual blocks, then the mean over space.

    Since it is a mean, codes of other fields of view than the trained one differ in meaning.
    """

    def __init__(self, inputs: int, widths: Sequence[int], size: int) -> None:
        super().__init__()
        steps = itertools.pairwise(widths)
        self.entry = nn.Sequential(conv(inputs, widths[0]), ResidualBlock(widths[0]))
        self.levels = nn.Sequential(
            *(nn.Sequential(conv(a, b, stride=2), ResidualBlock(b)) for a, b in steps)
        )
        self.norm = ChannelNorm(widths[-1])
        self.exit = nn.Linear(widths[-1], size)

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``(batch, size)`` of maps ``(batch, inputs, height, width)``."""
        pooled = F.silu(self.norm(self.levels(self.entry(x)))).mean((2, 3))
        code: Tensor = self.exit(pooled).float()
        return code


@dataclass(frozen=True)
class DiffusionAutoencoderConfig:
    """Sizes; encoder and U-Net cost as much as tau_1 and the denoiser of the paper's preset.

    Parameters
    ----------
    channels
        Of the latent.
    widths
        Channels of encoder and U-Net at each level.
    semantic
        Size of the semantic code.
    embedding
        Size of the vector that modulates the U-Net.
    """

    channels: int = 12
    widths: tuple[int, ...] = (96, 160, 224)
    semantic: int = 256
    embedding: int = 256


class DiffusionAutoencoder(nn.Module):
    """A `LatentRule` after DMCVR: encode the adjacent slices, interpolate their codes, render.

    DMCVR (He et al., MICCAI 2023) reconstructs cardiac volumes with a diffusion autoencoder
    (Preechakul et al., CVPR 2022). Every slice becomes a semantic and a stochastic code, which are
    interpolated between neighbours linearly and spherically, and rendered. DMCVR works on pixels
    and has a third code of its labels' shapes. This network works on the latents, data and training
    budget of the presets, sees no labels, as no other method does, and has sizes of its own.
    """

    default_steps = 100

    def __init__(self, config: DiffusionAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        size = config.embedding
        self.semantic = CodeEncoder(config.channels, config.widths, config.semantic)
        self.condition = nn.Linear(config.semantic, size)
        self.time = nn.Sequential(nn.Linear(FEATURES, size), nn.SiLU(), nn.Linear(size, size))
        self.unet = UNet(config.channels, config.channels, config.widths, size)

    def noise(self, x: Tensor, t: Tensor, code: Tensor) -> Tensor:
        """Prediction of the noise in ``x`` at times ``t`` ``(batch,)``, given semantic codes."""
        time = self.time(fourier_features(t, FEATURES, 2.0))
        predicted: Tensor = self.unet(x, F.silu(time + self.condition(code)))[0]
        return predicted

    def invert(self, latents: Tensor, code: Tensor, steps: int) -> Tensor:
        """Stochastic codes: the noise that `render` turns into these latents."""
        predict, times = partial(self.noise, code=code), time_grid(steps, latents.device).flip(0)
        return invert(predict, clipped_data, latents, variance_preserving, times)

    def render(self, noise: Tensor, code: Tensor, steps: int) -> Tensor:
        """Latents ``(batch, channels, h, w)`` of stochastic and semantic codes."""
        predict, times = partial(self.noise, code=code), time_grid(steps, noise.device)
        return ddim(predict, clipped_data, noise, variance_preserving, times)

    def forward(self, neighbours: Neighbours, steps: int = default_steps) -> Tensor:
        """Latents ``(targets, channels, h, w)``; see `LatentRule`.

        Inversion and rendering take ``steps`` steps each. Both adjacent slices are encoded and
        inverted once for all targets.
        """
        pair = neighbours.adjacent[0]
        share = neighbours.share[:, 1]
        code = self.semantic(pair)
        noise = self.invert(pair, code, steps)
        noise = slerp(noise[:1], noise[1:], share)
        return self.render(noise, torch.lerp(code[:1], code[1:], share[:, :, 0, 0]), steps)


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
