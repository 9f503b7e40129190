"""Stage 2: the two presets that turn neighbouring latents into the latents between them.

Both answer the same call, `fill`, and nothing outside asks which of them it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calid.diffusion.objective import data_from_noise, data_from_velocity
from calid.diffusion.sampler import ddim
from calid.diffusion.schedule import rectified_flow, time_grid, variance_preserving
from calid.errors import UsageError
from calid.models.context import Acquired, Context, Registered, nearest_context, register
from calid.models.correspondence import Aligned, Correspondence, SliceEncoder
from calid.models.denoiser import Denoiser
from calid.models.surroundings import Surroundings, surroundings

__all__ = [
    "Draw",
    "Filled",
    "Interpolator",
    "InterpolatorConfig",
    "LatentFiller",
    "PaperConfig",
    "PaperInterpolator",
    "with_temporal_layers",
    "without_temporal_layers",
]

Draw = Callable[[tuple[int, ...]], Tensor]
"""Standard normal noise of a shape, drawn on the CPU for every device."""


LATENT_RANGE = 4.0
"""Standard deviations beyond which an estimate of a unit-variance latent is not believed."""


@dataclass(frozen=True)
class Filled:
    """What a model puts into a gap.

    Parameters
    ----------
    latents
        ``(targets, channels, h, w)``.
    around
        What the acquired pixels say beside them; absent if the model aligns nothing.
    mean
        Of a sample the conditional mean, same shape: what was no choice of the sampler. Absent
        if ``latents`` are the mean, or if the model has none.
    """

    latents: Tensor
    around: Surroundings | None = None
    mean: Tensor | None = None


class LatentFiller(Protocol):
    """What a stage-2 model can do."""

    default_steps: int

    @property
    def reach(self) -> int | None:
        """Slices on either side of a target that its answer depends on, and on no other target.

        None if it sees all slices and targets of a call at once.
        """
        ...

    @property
    def sees_films(self) -> bool:
        """Whether it mixes over the frames of a film."""
        ...

    def fill(
        self,
        acquired: Acquired,
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        draw: Draw | None,
        steps: int,
        temperature: float,
    ) -> Filled:
        """Latents at the targets, all of them inside one gap.

        Parameters
        ----------
        acquired
            The slices, encoded. Of several frames only where the model knows films; the
            answer then has the targets of the first frame, those of the next, and so on.
        positions, targets
            mm; ``(slices,)`` and ``(targets,)``, increasing.
        draw
            Source of noise for one sample; none asks for the conditional mean.
        steps
            Sampler steps.
        temperature
            Scale of the starting noise; 1 samples, 0 is the sampler's mode.

        Raises
        ------
        UsageError
            If the mean is asked of a model that only samples.
        """
        ...


@dataclass(frozen=True)
class InterpolatorConfig:
    """Sizes of the default preset.

    Parameters
    ----------
    channels
        Of the latent.
    widths
        Channels of tau_1 and of the denoiser at each level.
    per_side
        Context slices on either side.
    residual
        Typical standard deviation of latent minus conditional mean in a wide gap; the
        denoiser sees residuals divided by it.
    temporal
        Heads of the layers that mix over the frames of a film; 0 for a network of single
        frames.
    """

    channels: int = 8
    widths: tuple[int, ...] = (80, 144, 208)
    per_side: int = 2
    residual: float = 0.9
    temporal: int = 0


class Interpolator(nn.Module):
    """Default preset: correspond, regress, then refine by rectified flow.

    tau_1 registers and aligns up to four slices and gives the conditional mean in one pass.
    The denoiser adds what the mean cannot know, as a residual whose size goes to zero towards
    acquired slices. All targets of a gap, and all frames of a film, share their noise, so the
    samples of a gap are one coherent piece of anatomy.
    """

    default_steps = 6

    def __init__(self, config: InterpolatorConfig) -> None:
        super().__init__()
        self.config = config
        self.correspondence = Correspondence(
            config.channels, config.widths, temporal=config.temporal
        )
        self.denoiser = Denoiser(config.channels, config.widths, temporal=config.temporal)

    @property
    def reach(self) -> int:
        """See `LatentFiller.reach`."""
        return self.config.per_side

    @property
    def sees_films(self) -> bool:
        """See `LatentFiller.sees_films`."""
        return self.config.temporal > 0

    def align(self, acquired: Acquired, context: Context) -> tuple[Aligned, Registered]:
        """tau_1 on all targets of ``context``, and what it was shown."""
        seen = register(acquired, context)
        return self.correspondence(seen), seen

    def known(self, acquired: Acquired, context: Context) -> tuple[Filled, list[Tensor]]:
        """The conditional mean with what surrounds it, and tau_1's maps for tau_2."""
        aligned, seen = self.align(acquired, context)
        return Filled(aligned.mean, surroundings(acquired, seen)), aligned.pyramid

    def residual_size(self, context: Context) -> Tensor:
        """Scale of the residual at each target, ``(targets, 1, 1, 1)``."""
        return self.config.residual * context.gate[:, None, None, None]

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
        """See `LatentFiller.fill`."""
        context = nearest_context(positions, targets, self.config.per_side)
        context = context.over(acquired.frames, len(positions)).to(acquired.latents.device)
        known, pyramid = self.known(acquired, context)
        if draw is None:
            return known
        mean, injected = known.latents, self.denoiser.inject(pyramid)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return data_from_velocity(self.denoiser(x, t, injected, context.frames), x, t)

        times = time_grid(steps, mean.device)
        noise = temperature * draw((1, *mean.shape[1:])).to(mean).expand_as(mean)
        residual = ddim(denoise, noise, rectified_flow, times)
        return replace(known, latents=mean + self.residual_size(context) * residual, mean=mean)


def with_temporal_layers(model: Interpolator, heads: int = 4) -> Interpolator:
    """The same network with layers that mix over frames; it answers as before until trained.

    As image models become video models (Blattmann et al., CVPR 2023). A model that has such
    layers is returned as it is.
    """
    if model.config.temporal:
        return model
    film = Interpolator(replace(model.config, temporal=heads))
    film.load_state_dict(film.state_dict() | model.state_dict())
    return film.train(model.training)


def without_temporal_layers(model: Interpolator) -> Interpolator:
    """The same network of single frames, which it answers as before.

    Layers that mix over frames are trained for the layers that they stand between: where these
    are trained on, they go. A model that has none is returned as it is.
    """
    if not model.config.temporal:
        return model
    single = Interpolator(replace(model.config, temporal=0))
    kept = single.state_dict().keys()
    single.load_state_dict({k: v for k, v in model.state_dict().items() if k in kept})
    return single.train(model.training)


@dataclass(frozen=True)
class PaperConfig:
    """Sizes of the paper preset; the paper gives none, so these are ours."""

    channels: int = 8
    widths: tuple[int, ...] = (64, 128, 192)


class PaperInterpolator(nn.Module):
    """Paper preset: the slice midway between two, by DDIM from noise, again and again.

    Noise prediction on 1000 training steps, the two adjacent slices as context, midpoints of
    midpoints until the stack is dense enough (Bubeck et al., arXiv 2508.13826, 2025).
    """

    default_steps = 50
    reach = None
    sees_films = False

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        self.config = config
        self.encode = SliceEncoder(2 * config.channels, config.widths)
        self.denoiser = Denoiser(config.channels, config.widths)

    def condition(self, below: Tensor, above: Tensor) -> list[Tensor]:
        """tau_1: the conditional embedding of pairs of adjacent latents."""
        pyramid: list[Tensor] = self.encode(torch.cat([below, above], 1))
        return pyramid

    def midpoint(self, below: Tensor, above: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Sample the latents midway between pairs; all ``(batch, channels, h, w)``."""
        injected = self.denoiser.inject(self.condition(below, above))

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            data = data_from_noise(self.denoiser(x, t, injected), x, t, variance_preserving)
            # Dividing by alpha(1) = 0.0066 turns a small error into a large latent.
            return data.clamp(-LATENT_RANGE, LATENT_RANGE)

        return ddim(denoise, noise, variance_preserving, time_grid(steps, noise.device))

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
        """See `LatentFiller.fill`; every target takes the nearest dyadic position of its gap.

        The recursion stops when its positions are at least as dense as the targets.
        """
        if draw is None:
            raise UsageError(
                "--samples 0",
                "The paper preset samples and has no conditional mean.",
                "Use --samples 1 or more, or --preset default.",
            )
        upper = int(np.searchsorted(positions, targets[0]))
        low, high = positions[upper - 1], positions[upper]
        depth = int(np.ceil(np.log2(len(targets) + 1)))
        place = np.rint((targets - low) / (high - low) * 2**depth).astype(int)
        place = np.clip(place, 1, 2**depth - 1)
        known = acquired.latents[upper - 1 : upper + 1]
        for _ in range(depth):
            noise = temperature * draw((1, *known.shape[1:])).to(known)
            between = self.midpoint(known[:-1], known[1:], noise.expand_as(known[1:]), steps)
            dense = known.new_empty(2 * len(known) - 1, *known.shape[1:])
            dense[::2], dense[1::2] = known, between
            known = dense
        return Filled(known[torch.from_numpy(place)])
