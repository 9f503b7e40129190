"""Stage 2: train an interpolator, its transport, or a learned baseline on tuples of latents.

Each objective states its loss in its docstring. Errors of the mean and of the transport are divided
by the gate, so that targets close to an acquired slice, which are easy, count as much as others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from calid.baselines.learned import (
    Baseline,
    DiffusionAutoencoder,
    RegressionInterpolator,
    save_baseline,
)
from calid.data.augment import seeded
from calid.diffusion import diffuse, logit_normal, rectified_flow, variance_preserving, velocity
from calid.models.interpolator import LatentInterpolator, Neighbours, start
from calid.models.layers import channels_last
from calid.models.motion import ONE_FRAME, Frames
from calid.models.store import save_tensors
from calid.runtime import choose_precision, computing
from calid.training.loop import Task
from calid.training.tuples import NARROW, Tuples

__all__ = [
    "DiffusionAutoencoderObjective",
    "MeanAndPosteriorObjective",
    "NoiseObjective",
    "RegressionObjective",
    "TransportObjective",
    "TupleBatch",
    "film_task",
    "interpolator_task",
    "noise_times",
    "transport_task",
]


@dataclass(frozen=True)
class TupleBatch:
    """Some tuples and the random numbers of a step.

    Parameters
    ----------
    truth
        Latents of the hidden slices, ``(tuples, channels, h, w)``.
    neighbours
        What surrounds them.
    noise
        Standard normal, of ``truth``'s shape.
    uniform
        In ``[0, 1)``, stratified: one in each of ``tuples`` equal parts. ``(tuples,)``.
    mean
        Conditional means, of ``truth``'s shape, where the objective starts from them.
    frames
        Of the film; tuples are frame-major, all of frame 0 first.
    """

    truth: Tensor
    neighbours: Neighbours
    noise: Tensor
    uniform: Tensor
    mean: Tensor | None = None
    frames: Frames = ONE_FRAME


class NoiseObjective(nn.Module):
    """Paper preset: predict the noise, ``|eps_theta(x_t, t, c) - eps|^2 / alpha^2``.

    The unweighted loss of Ho et al. (2020) almost ignores times of nearly pure noise, where the
    neighbours matter most. With the weight the loss is the squared error of the velocity
    ``alpha eps - sigma z`` (Salimans and Ho, ICLR 2022): it is v-prediction, written in the noise.
    """

    def __init__(self, interpolator: LatentInterpolator) -> None:
        super().__init__()
        self.interpolator = interpolator

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        t = noise_times(batch.uniform)
        x = diffuse(batch.truth, batch.noise, t, variance_preserving)
        known = self.interpolator.encode(batch.neighbours)
        error = self.interpolator.predict(x, t, known) - batch.noise
        alpha = variance_preserving(t)[0][:, None, None, None]
        return {"loss": (error / alpha).square().mean()}


class MeanAndPosteriorObjective(nn.Module):
    """Default preset: the conditional mean, and the posterior of the residual.

    ``L = |mu - z|^2 / g^2 + flow |v_theta(x_t, t, c) - (eps - r)|^2`` with the residual
    ``r = (z - mu) / (S g)`` and ``x_t = (1 - t) r + t eps``.

    Parameters
    ----------
    flow
        Weight of the second term.
    """

    def __init__(self, interpolator: LatentInterpolator, flow: float = 0.5) -> None:
        super().__init__()
        self.interpolator, self.flow = interpolator, flow

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        model, gate = self.interpolator, batch.neighbours.gate
        known = model.encode(batch.neighbours, batch.frames)
        assert known.mean is not None
        regression = ((known.mean - batch.truth) / gate).square().mean()
        # The target has no gradient: else the second term would move the mean towards what is
        # easy to predict. It still trains tau_1 through the features that tau_2 injects.
        residual = (batch.truth - known.mean.detach()) / (model.config.residual * gate)
        t = logit_normal(torch.special.ndtri(batch.uniform.clamp(1e-4, 1 - 1e-4)))
        x = diffuse(residual, batch.noise, t, rectified_flow)
        error = model.predict(x, t, known) - velocity(residual, batch.noise)
        flow = error.square().mean()
        loss = regression + self.flow * flow
        return {"loss": loss, "regression": regression.detach(), "flow": flow.detach()}


class TransportObjective(nn.Module):
    """From between mean and blend to real latents: ``|v(x_t, t) - (z - z_0)|^2 / g^2``.

    ``x_t = (1 - t) z_0 + t z`` with uniform ``t`` (Ohayon et al., ICLR 2025, eq. 4).
    """

    def __init__(self, interpolator: LatentInterpolator) -> None:
        super().__init__()
        assert interpolator.transport is not None
        self.config, self.transport = interpolator.config, interpolator.transport

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        assert batch.mean is not None
        config = self.config
        first = start(batch.neighbours, batch.mean, config.approach)
        first = first + config.start_noise * batch.neighbours.gate * batch.noise
        t = batch.uniform[:, None, None, None]
        x = (1 - t) * first + t * batch.truth
        error = self.transport(x, batch.uniform) - (batch.truth - first)
        return {"loss": (error / batch.neighbours.gate).square().mean()}


class RegressionObjective(nn.Module):
    """Regression baseline: the default preset's loss of the mean, ``|mu - z|^2 / g^2``."""

    def __init__(self, baseline: RegressionInterpolator) -> None:
        super().__init__()
        self.baseline = baseline

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss of a batch."""
        error = self.baseline(batch.neighbours) - batch.truth
        return {"loss": (error / batch.neighbours.gate).square().mean()}


class DiffusionAutoencoderObjective(nn.Module):
    """Diffusion autoencoder: the noise in a slice, ``|eps_theta(x_t, t, e(z)) - eps|^2``.

    It is given the slice's own code, not its neighbours (Preechakul et al., CVPR 2022).
    """

    def __init__(self, baseline: DiffusionAutoencoder) -> None:
        super().__init__()
        self.baseline = baseline

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss of a batch."""
        t = noise_times(batch.uniform)
        x = diffuse(batch.truth, batch.noise, t, variance_preserving)
        predicted = self.baseline.noise(x, t, self.baseline.semantic(batch.truth))
        return {"loss": (predicted - batch.noise).square().mean()}


def noise_times(uniform: Tensor) -> Tensor:
    """The 1000 training times of noise prediction, from numbers in ``[0, 1)``; never 0."""
    return torch.ceil(uniform * 1000).clamp(min=1) / 1000


def interpolator_task(
    network: LatentInterpolator | Baseline,
    train: Tuples,
    held_out: Tuples,
    weights: Path,
    batch: int,
    seed: int,
    device: torch.device,
) -> Task:
    """Everything the loop needs for tau_1, tau_2 and the denoiser of a preset, or for a baseline.

    Parameters
    ----------
    train, held_out
        Tuples of different subjects. The paper's preset learns from those midway in their gap.
    weights
        File that the averaged network is written to.
    batch
        Tuples a step and process.
    """
    objective: nn.Module
    if isinstance(network, LatentInterpolator):
        export = partial(_save, network, weights)
        if network.config.registered:
            objective = MeanAndPosteriorObjective(network)
            # Trained on their own, see transport_task and film_task.
            for later in (network.transport, *network.mixing):
                later.requires_grad_(False)
        else:
            objective = NoiseObjective(network)
            train, held_out = _midway(train), _midway(held_out)
    else:
        export = partial(save_baseline, network, weights)
        if isinstance(network, RegressionInterpolator):
            objective = RegressionObjective(network)
        else:
            objective = DiffusionAutoencoderObjective(network)
    return _task(objective, export, train, held_out, batch, seed, device)


def transport_task(
    interpolator: LatentInterpolator,
    train: Tuples,
    held_out: Tuples,
    weights: Path,
    batch: int,
    seed: int,
    device: torch.device,
) -> Task:
    """Everything the loop needs for the transport, with all else trained; see `interpolator_task`.

    The means of all tuples are computed once, before the first step.
    """
    interpolator.requires_grad_(False)
    objective = TransportObjective(interpolator)
    objective.transport.requires_grad_(True)

    @cache
    def means(held: bool) -> Tensor:
        return _means(interpolator, held_out if held else train, device)

    export = partial(_save, interpolator, weights)
    return _task(objective, export, train, held_out, batch, seed, device, means)


def film_task(
    interpolator: LatentInterpolator,
    train: Sequence[Tuples],
    held_out: Sequence[Tuples],
    weights: Path,
    batch: int,
    seed: int,
    device: torch.device,
) -> Task:
    """Everything the loop needs for tau_1's mixing of frames, with all else trained.

    Nothing else learns, so that answers for single frames stay as they are. Every step sees some
    targets of one film, in all of its frames; parameters as in `interpolator_task`.
    """
    interpolator.requires_grad_(False)
    interpolator.mixing.requires_grad_(True)
    objective = MeanAndPosteriorObjective(interpolator)
    channels_last(objective)

    def part(film: Tuples, some: Tensor, generator: torch.Generator) -> TupleBatch:
        # Tuples are frame-major.
        rows = torch.arange(len(film)).view(film.frames.count, -1)[:, some].flatten()
        drawn = _batch(film, rows, None, generator, device)
        return replace(drawn, frames=film.frames)

    def draw(step: int, rank: int) -> TupleBatch:
        generator = seeded(seed, step, 11, rank)
        film = train[int(torch.randint(len(train), (), generator=generator))]
        count = film.frames.count
        some = torch.randperm(len(film) // count, generator=generator)[: max(1, batch // count)]
        return part(film, some, generator)

    def validate() -> Mapping[str, float]:
        """Loss terms with mixing, and without as ``alone_``."""
        figures: dict[str, float] = {}
        for name, alone in (("", False), ("alone_", True)):
            rows, sizes = [], []
            for film in held_out:
                seen = part(film, torch.arange(len(film) // film.frames.count), seeded(seed, 10))
                terms = objective(replace(seen, frames=ONE_FRAME) if alone else seen)
                rows.append(torch.stack([x.float() for x in terms.values()]).cpu() * len(film))
                sizes.append(len(film))
            total = torch.stack(rows).sum(0) / sum(sizes)
            figures |= {f"{name}{k}": v for k, v in zip(terms, total.tolist(), strict=True)}
        return figures

    export = partial(_save, interpolator, weights)
    return Task(objective, draw, validate, export, batch, "tuples")


def _task(
    objective: nn.Module,
    export: Callable[[Mapping[str, float]], None],
    train: Tuples,
    held_out: Tuples,
    batch: int,
    seed: int,
    device: torch.device,
    means: Callable[[bool], Tensor | None] = lambda held_out: None,
) -> Task:
    """A training on tuples.

    Validation gives the objective's terms on all held-out tuples, on those of narrow gaps, and on
    those of wide gaps.

    Parameters
    ----------
    objective
        Module whose call takes a `TupleBatch`.
    export
        As `Task.export`.
    train, held_out
        Tuples of different subjects.
    batch
        Tuples a step and process.
    means
        Conditional means of ``train``, or of ``held_out``, for `TupleBatch.mean`.
    """
    channels_last(objective)

    def draw(step: int, rank: int) -> TupleBatch:
        generator = seeded(seed, step, 9, rank)
        picks = torch.randint(len(train), (batch,), generator=generator)
        return _batch(train, picks, means(False), generator, device)

    def validate() -> Mapping[str, float]:
        figures: dict[str, float] = {}
        wide = held_out.gap > NARROW[1]
        for name, chosen in (("", wide | ~wide), ("narrow_", ~wide), ("wide_", wide)):
            if not chosen.any():
                continue
            rows = []
            for picks in torch.nonzero(chosen)[:, 0].split(batch):
                # The same noise and times at every validation.
                part = _batch(held_out, picks, means(True), seeded(seed, 10), device)
                terms = objective(part)
                rows.append(torch.stack([x.float() for x in terms.values()]).cpu() * len(picks))
            total = torch.stack(rows).sum(0) / chosen.sum()
            figures |= {f"{name}{k}": v for k, v in zip(terms, total.tolist(), strict=True)}
        return figures

    return Task(objective, draw, validate, export, batch, "tuples")


def _save(interpolator: LatentInterpolator, path: Path, figures: Mapping[str, float]) -> None:
    save_tensors(interpolator, "interpolator", interpolator.config, figures, path)


def _batch(
    tuples: Tuples,
    picks: Tensor,
    means: Tensor | None,
    generator: torch.Generator,
    device: torch.device,
) -> TupleBatch:
    truth, neighbours = tuples.batch(picks, device)
    count = len(picks)
    noise = torch.randn(truth.shape, generator=generator).to(device)
    offset = torch.rand((), generator=generator)
    uniform = ((torch.arange(count) + offset) / count).to(device)
    mean = None if means is None else means[picks].to(device).float()
    return TupleBatch(truth, neighbours, noise, uniform, mean)


def _midway(tuples: Tuples) -> Tuples:
    """The tuples whose target lies in the middle of its gap."""
    off = tuples.distance[:, :2].sum(1).abs()
    return tuples.chosen(torch.nonzero(off < 0.05 * tuples.gap)[:, 0])


@torch.no_grad()
def _means(interpolator: LatentInterpolator, tuples: Tuples, device: torch.device) -> Tensor:
    """Conditional means of all tuples, float16, in the precision of the training."""
    found = torch.empty((len(tuples), *tuples.latents.shape[1:]), dtype=torch.float16)
    for picks in torch.arange(len(tuples)).split(256):
        _, neighbours = tuples.batch(picks, device)
        with computing(device, choose_precision(device)):
            mean = interpolator.encode(neighbours).mean
            assert mean is not None
            found[picks] = mean.half().cpu()
    return found
