"""The method: latents of neighbouring slices in, latents of the slices between them out.

==============  ====================================================================
name            what it is
==============  ====================================================================
tau_1           U-Net on the neighbours' latents; encodes them once for each target
tau_2           adds tau_1's features to the denoiser's, at every level
denoiser        U-Net that predicts noise (``paper``) or a velocity (``default``)
mean            estimate of the conditional mean, from tau_1 (``default``)
transport       U-Net of the flow from between mean and blend to real latents (``default``)
==============  ====================================================================

``paper`` follows Bubeck et al. (arXiv 2508.13826, 2025): tau_1, tau_2 and a denoiser on the two
adjacent slices, and midpoint after midpoint until the stack is dense. ``default`` sees registered
and next neighbours as well. Sizes and the way of injecting are ours, the paper gives none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.diffusion import (
    adams_bashforth,
    data_from_noise,
    ddim,
    time_grid,
    variance_preserving,
)
from calid.models.layers import fourier_features
from calid.models.motion import ONE_FRAME, Frames
from calid.models.unet import Injection, UNet

__all__ = [
    "DEFAULT",
    "PAPER",
    "Encoded",
    "InterpolatorConfig",
    "LatentInterpolator",
    "Neighbours",
    "clipped_data",
    "depth_for",
    "gate_at",
    "midpoints",
    "start",
]


@dataclass(frozen=True)
class InterpolatorConfig:
    """What an interpolator is made of; `PAPER` and `DEFAULT` are the two that are trained.

    Parameters
    ----------
    registered
        tau_1 also sees the neighbours moved to the target and the next slices out, gives the
        conditional mean, and the denoiser predicts the velocity of the residual. Without, tau_1
        sees the two adjacent slices alone and the denoiser predicts the noise of the latent.
    channels
        Of the latent.
    widths
        Channels at each level of tau_1 and of the transport.
    denoiser
        Channels at each level of the denoiser.
    embedding
        Size of the vectors that distances and times become.
    mixing
        Widths in time, as a share of the film, over which tau_1 mixes the frames of a film;
        without, it sees each frame by itself.
    residual
        ``S``, the standard deviation of latent minus mean in a wide gap: the denoiser's residuals
        are divided by it.
    approach, start_noise
        ``a`` of the transport's start ``z_0 = mu + a (b - mu)``, and ``s`` of the noise ``s g eps``
        that is added to it in training alone.
    dial
        Position between the mean, 0, and the crisp answer, 1, that users get unless they ask for
        another.
    detail
        Standard deviation in pixels of the Gaussian that divides the detail of what the transport
        adds from its structure.
    default_gains, crisp_gains
        Of detail and of structure, at the default position and at 1: the transport's detail is too
        weak, its structure is error in part. These and `detail` were chosen on the validation set
        by ``benchmarks/tradeoff.py``: least error at sharpness 0.6, and least error at sharpness
        0.85 with the SSIM of the row ``registration``.
    transport_steps, sampler_steps
        Of the solver, for the transport and for a posterior sample; chosen on the validation set
        where more steps hardly change error and sharpness.
    """

    registered: bool = True
    channels: int = 12
    widths: tuple[int, ...] = (96, 160, 224)
    denoiser: tuple[int, ...] = (64, 112, 160)
    embedding: int = 128
    mixing: tuple[float, ...] = ()
    residual: float = 0.9
    approach: float = 0.7
    start_noise: float = 0.1
    dial: float = 0.75
    detail: float = 1.5
    default_gains: tuple[float, float] = (1.12, 0.0)
    crisp_gains: tuple[float, float] = (1.2, 0.5)
    transport_steps: int = 6
    sampler_steps: int = 12


DEFAULT = InterpolatorConfig(mixing=(0.04, 0.12))
PAPER = InterpolatorConfig(
    registered=False, widths=(64, 112, 160), denoiser=(96, 160, 224), sampler_steps=25
)


@dataclass(frozen=True)
class Neighbours:
    """The slices around each target, in order of position: the one below, the one above.

    Parameters
    ----------
    adjacent
        Latents of the nearest slice below and above, ``(targets, 2, channels, h, w)``.
    distance
        Signed mm from the target to these and to the next slices out, ``(targets, 4)``; 0 where
        there is no next slice.
    moved
        The adjacent slices registered to the target, then encoded; as ``adjacent``.
    beyond
        The next slices out, 0 where there are none; as ``adjacent``.
    """

    adjacent: Tensor
    distance: Tensor
    moved: Tensor
    beyond: Tensor

    @property
    def share(self) -> Tensor:
        """Weight of either adjacent slice, ``(targets, 2, 1, 1, 1)``: linear interpolation."""
        reach = self.distance[:, :2].abs()
        return (reach.flip(1) / reach.sum(1, keepdim=True))[..., None, None, None]

    @property
    def blend(self) -> Tensor:
        """``b``: linear interpolation of the registered slices, ``(targets, channels, h, w)``."""
        return self.weighted(self.moved)

    def weighted(self, pair: Tensor) -> Tensor:
        """The slice below and the one above, ``(targets, 2, ...)``, weighted by `share`."""
        share = self.share.flatten(1)
        return (share.view(*share.shape, *[1] * (pair.ndim - 2)) * pair).sum(1)

    def part(self, some: slice) -> Neighbours:
        """Those of some of the targets."""
        return Neighbours(
            self.adjacent[some], self.distance[some], self.moved[some], self.beyond[some]
        )

    @property
    def gate(self) -> Tensor:
        """``g`` of every target, see `gate_at`."""
        return gate_at(self.distance)


GATE = 5.0
"""Harmonic mean distance in mm at which the gate is 0.7."""

FEATURES, PERIOD = 32, 160.0
"""Fourier features of a distance and the longest wavelength among them in mm."""

LATENT_RANGE = 4.0
"""Standard deviations to which an estimate of a clean latent is clipped."""


def gate_at(distance: Tensor) -> Tensor:
    """``g``, ``(targets, 1, 1, 1)``: 0 on an acquired slice, towards 1 in a wide gap.

    ``g = h / sqrt(h^2 + (5 mm)^2)`` with the harmonic mean ``h`` of the distances to both adjacent
    slices. Corrections, residuals and noise are multiplied by it.

    Parameters
    ----------
    distance
        As `Neighbours.distance`; more than the first two columns are ignored.
    """
    below, above = distance[:, :2].abs().unbind(1)
    mean = 2 * below * above / (below + above)
    return (mean / (mean.square() + GATE**2).sqrt())[:, None, None, None]


class LatentInterpolator(nn.Module):
    """Both presets; see the head of this file."""

    def __init__(self, config: InterpolatorConfig) -> None:
        super().__init__()
        self.config = config
        channels, widths, size = config.channels, config.widths, config.embedding
        context, outputs = (6, channels) if config.registered else (2, 0)
        distances = 4 * FEATURES + 2 if config.registered else 2 * FEATURES
        self.place = nn.Sequential(nn.Linear(distances, size), nn.SiLU(), nn.Linear(size, size))
        self.time = nn.Sequential(nn.Linear(FEATURES, size), nn.SiLU(), nn.Linear(size, size))
        self.tau_1 = UNet(context * channels, outputs, widths, size, config.mixing)
        self.tau_2 = Injection(widths, config.denoiser)
        states = 2 if config.registered else 1
        self.denoiser = UNet(states * channels, channels, config.denoiser, size)
        self.transport = Transport(config) if config.registered else None

    @property
    def mixing(self) -> nn.ModuleList:
        """What mixes the frames of a film, in tau_1."""
        return nn.ModuleList([*self.tau_1.mix_down, *self.tau_1.mix_up])

    def encode(self, neighbours: Neighbours, frames: Frames = ONE_FRAME) -> Encoded:
        """tau_1 and tau_2: all that does not change over a sampler's steps, and between samples.

        Parameters
        ----------
        frames
            Of the film; targets are frame-major, all of frame 0 first. tau_1 mixes them.
        """
        seen = [neighbours.adjacent]
        if self.config.registered:
            seen = [neighbours.moved, neighbours.adjacent, neighbours.beyond]
        context = torch.cat(seen, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        where = self.embed(neighbours.distance)
        correction, features = self.tau_1(context, F.silu(where), frames=frames)
        # mu = b + g f(c)
        mean = neighbours.blend + neighbours.gate * correction if self.config.registered else None
        return Encoded(neighbours, mean, where, self.tau_2(features))

    def embed(self, distance: Tensor) -> Tensor:
        """A vector for each target, of the distances to the neighbours that tau_1 sees."""
        features = fourier_features(distance, FEATURES, PERIOD)
        if self.config.registered:
            there = (distance[:, 2:] != 0).to(distance.dtype)
            seen = torch.cat([features.flatten(1), there], 1)
        else:
            seen = features[:, :2].flatten(1)
        out: Tensor = self.place(seen)
        return out

    def predict(self, x: Tensor, t: Tensor, known: Encoded) -> Tensor:
        """The denoiser at ``x_t``: noise (``paper``), or the velocity of the residual.

        Parameters
        ----------
        x
            ``(targets, channels, h, w)``.
        t
            ``(targets,)`` in ``[0, 1]``; 1 is pure noise.
        known
            Of `encode`.
        """
        embedding = F.silu(known.where + self.time(fourier_features(t, FEATURES, 2.0)))
        state = x if known.mean is None else torch.cat([x, known.mean.detach()], 1)
        state = state.contiguous(memory_format=torch.channels_last)
        out: Tensor = self.denoiser(state, embedding, known.injected)[0]
        if known.mean is None:
            # eps_theta = sigma x + alpha F: the network predicts the velocity F (Salimans and Ho,
            # ICLR 2022), from which the noise follows.
            alpha, sigma = (c[:, None, None, None] for c in variance_preserving(t))
            out = sigma * x + alpha * out
        return out

    def sample(self, known: Encoded, noise: Tensor, steps: int) -> Tensor:
        """A draw from the posterior of the targets' latents.

        Parameters
        ----------
        known
            Of `encode`.
        noise
            Standard normal, ``(targets, channels, h, w)``.
        """
        predict, times = partial(self.predict, known=known), time_grid(steps, noise.device)
        if known.mean is None:
            return ddim(predict, clipped_data, noise, variance_preserving, times)
        # z = mu + S g r
        residual = adams_bashforth(predict, noise, times)
        return known.mean + self.config.residual * known.neighbours.gate * residual

    def transported(self, known: Encoded, steps: int) -> Tensor:
        """The end of the transport, ``(targets, channels, h, w)``; `DEFAULT` only.

        Posterior-mean rectified flow (Ohayon et al., ICLR 2025), started near the blend so that the
        edges of the registered neighbours are kept. It is deterministic: targets and frames are as
        coherent as their means are.

        Parameters
        ----------
        known
            Of `encode`.
        """
        if self.transport is None or known.mean is None:
            raise ValueError("an interpolator without registration has no mean to start from")
        first = start(known.neighbours, known.mean, self.config.approach)
        return adams_bashforth(self.transport, first, 1 - time_grid(steps, first.device))


def clipped_data(noise: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The clean latent by a prediction of the noise, clipped to plausible values."""
    data = data_from_noise(noise, x, t, variance_preserving)
    # alpha(1) is 0.0066: dividing by it makes a large latent of a small error.
    return data.clamp(-LATENT_RANGE, LATENT_RANGE)


@dataclass(frozen=True)
class Encoded:
    """What tau_1 and tau_2 give for some targets.

    Parameters
    ----------
    neighbours
        What they saw.
    mean
        ``mu``, the conditional mean ``(targets, channels, h, w)``; `DEFAULT` only.
    where
        Embedding of the distances, ``(targets, embedding)``.
    injected
        Maps for the denoiser.
    """

    neighbours: Neighbours
    mean: Tensor | None
    where: Tensor
    injected: list[Tensor]

    def part(self, some: slice) -> Encoded:
        """Of some of the targets."""
        mean = None if self.mean is None else self.mean[some]
        injected = [maps[some] for maps in self.injected]
        return Encoded(self.neighbours.part(some), mean, self.where[some], injected)


class Transport(nn.Module):
    """``v(x_t, t)``, from `start` to real latents; it sees its state and the time alone.

    If it were conditioned on the neighbours it would sample the posterior, and a posterior sample
    has twice the squared error of the mean.
    """

    def __init__(self, config: InterpolatorConfig) -> None:
        super().__init__()
        size = config.embedding
        self.time = nn.Sequential(nn.Linear(FEATURES, size), nn.SiLU(), nn.Linear(size, size))
        self.unet = UNet(config.channels, config.channels, config.widths, size)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity ``(targets, channels, h, w)`` at ``x`` and times ``(targets,)``; 1 is data."""
        embedding = F.silu(self.time(fourier_features(t, FEATURES, 2.0)))
        out: Tensor = self.unet(x.contiguous(memory_format=torch.channels_last), embedding)[0]
        return out


def start(neighbours: Neighbours, mean: Tensor, approach: float) -> Tensor:
    """``z_0 = mu + a (b - mu)``, where the transport begins."""
    return torch.lerp(mean, neighbours.blend, approach)


Between = Callable[[Tensor, Tensor, float], Tensor]
"""Latents ``(pairs, channels, h, w)`` below and above, and the mm from these to the slices midway,
to the latents of those."""


def midpoints(latents: Tensor, gap: float, depth: int, between: Between) -> Tensor:
    """The paper's autoregressive order: midpoints, then midpoints of these, ``depth`` times.

    Parameters
    ----------
    latents
        Of slices ``gap`` mm apart, ``(slices, channels, h, w)``.

    Returns
    -------
    Tensor
        ``((slices - 1) * 2**depth + 1, channels, h, w)``; every ``2**depth``-th is given.
    """
    for level in range(depth):
        dense = latents.new_empty(2 * len(latents) - 1, *latents.shape[1:])
        half = gap / 2 ** (level + 1)
        dense[::2], dense[1::2] = latents, between(latents[:-1], latents[1:], half)
        latents = dense
    return latents


def depth_for(count: int) -> int:
    """Halvings that give at least ``count`` positions inside a gap."""
    return math.ceil(math.log2(count + 1))
