"""A diffusion autoencoder after DMCVR, in the latent space of stage 1.

DMCVR (He et al., MICCAI 2023) reconstructs cardiac volumes with a diffusion autoencoder
(Preechakul et al., CVPR 2022): every slice becomes a semantic code, a code of its labels'
shapes and a stochastic code; all are interpolated between neighbours by fixed rules, linear
and spherical, and rendered. It works on pixels; here, it gets the same latents, data and
training budget as the presets, and the code of labels is optional because no other method
sees labels. Sizes are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from calid.baselines.codes import CodeEncoder
from calid.baselines.latent_spherical import slerp
from calid.diffusion.objective import data_from_noise
from calid.diffusion.sampler import ddim, invert
from calid.diffusion.schedule import time_grid, variance_preserving
from calid.models.context import Acquired
from calid.models.interpolator import LATENT_RANGE, Draw, Filled
from calid.models.layers import fourier_features
from calid.models.unet import UNet

__all__ = ["DiffusionAutoencoder", "DiffusionAutoencoderConfig", "Labels"]

Labels = Callable[[Tensor], Tensor]
"""Images ``(batch, 1, height, width)`` to one-hot labels ``(batch, 4, height, width)``:
background, right ventricle, myocardium, left ventricle."""

CLASSES = 4
SHAPE_WIDTHS, SHAPE_SIZE = (16, 32, 64), 64


@dataclass(frozen=True)
class DiffusionAutoencoderConfig:
    """Sizes of the diffusion autoencoder.

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
    morphology
        Encode label maps as well.
    """

    channels: int = 8
    widths: tuple[int, ...] = (80, 144, 208)
    semantic: int = 256
    embedding: int = 256
    morphology: bool = False


class DiffusionAutoencoder(nn.Module):
    """Encode both neighbours, interpolate their codes, render.

    Parameters
    ----------
    labels
        Where label maps come from, if ``config.morphology``: known ones or a segmentation.
    """

    default_steps = 100
    reach = None
    sees_films = False

    def __init__(self, config: DiffusionAutoencoderConfig, labels: Labels | None = None) -> None:
        super().__init__()
        self.config = config
        self.semantic = CodeEncoder(config.channels, config.widths, config.semantic)
        self.shape, size = None, config.semantic
        if config.morphology:
            self.shape = CodeEncoder(CLASSES, SHAPE_WIDTHS, SHAPE_SIZE)
            size += SHAPE_SIZE
        self.condition = nn.Linear(size, config.embedding)
        self.time = nn.Sequential(
            nn.Linear(32, config.embedding),
            nn.SiLU(),
            nn.Linear(config.embedding, config.embedding),
        )
        self.unet = UNet(config.channels, config.channels, config.widths, config.embedding)
        self.labels: Labels | None = None
        if labels is not None:
            self.label_with(labels)

    def label_with(self, labels: Labels) -> None:
        """Take label maps from here, from now on."""
        # Wrapped: a network, given as it is, would be trained and saved as a part of this one.
        self.labels = partial(labels)

    def code(self, latents: Tensor, images: Tensor) -> Tensor:
        """What the slices show, as one vector each, ``(batch, size)``.

        Parameters
        ----------
        latents, images
            The same slices, ``(batch, channels, h, w)`` and ``(batch, 1, height, width)``.

        Raises
        ------
        ValueError
            If label maps are needed and nothing provides them.
        """
        code: Tensor = self.semantic(latents)
        if self.shape is None:
            return code
        if self.labels is None:
            raise ValueError("a morphology code needs `labels`, which nobody has given")
        with torch.no_grad():
            maps = self.labels(images)
        # Which share of each latent pixel is of which class.
        shares = F.avg_pool2d(maps.to(code.dtype), images.shape[-1] // latents.shape[-1])
        return torch.cat([code, self.shape(shares)], 1)

    def noise(self, x: Tensor, t: Tensor, code: Tensor) -> Tensor:
        """Prediction of the noise in ``x`` at times ``t`` ``(batch,)``, given the codes."""
        time = self.time(fourier_features(t, 32, period=2.0))
        predicted: Tensor = self.unet(x, F.silu(time + self.condition(code)))[0]
        return predicted

    def invert(self, latents: Tensor, code: Tensor, steps: int) -> Tensor:
        """Stochastic codes: the noise that `render` turns into these latents."""
        times = time_grid(steps, latents.device).flip(0)
        return invert(self._given(code), latents, variance_preserving, times)

    def render(self, noise: Tensor, code: Tensor, steps: int) -> Tensor:
        """Latents ``(batch, channels, h, w)`` of stochastic and other codes."""
        times = time_grid(steps, noise.device)
        return ddim(self._given(code), noise, variance_preserving, times)

    def _given(self, code: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            data = data_from_noise(self.noise(x, t, code), x, t, variance_preserving)
            # Dividing by alpha(1) = 0.0066 turns a small error into a large latent.
            return data.clamp(-LATENT_RANGE, LATENT_RANGE)

        return denoise

    @torch.no_grad()
    def fill(
        self,
        acquired: Acquired,
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        draw: Draw | None,
        steps: int,
        temperature: float,
    ) -> Filled:
        """See `LatentFiller.fill`; its noise comes from the neighbours, so nothing is drawn.

        ``steps`` are those of the inversion and of the rendering, each.
        """
        upper = int(np.searchsorted(positions, targets[0]))
        pair = slice(upper - 1, upper + 1)
        low, high = positions[pair]
        share = torch.from_numpy((targets - low) / (high - low)).to(acquired.latents)[:, None]
        latents = acquired.latents[pair]
        code = self.code(latents, acquired.images[pair])
        noise = self.invert(latents, code, steps)
        noise = slerp(noise[:1], noise[1:], share[..., None, None])
        return Filled(self.render(noise, torch.lerp(code[:1], code[1:], share), steps))
