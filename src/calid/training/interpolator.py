"""Stage 2: train an interpolator on hidden slices, in the latent space of stage 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from calid.data.bank import Film
from calid.data.sampling import StackSampler, TrainingStack, centre_stack, seeded
from calid.data.sparsify import draw_tuple, hide_alternate
from calid.diffusion.objective import diffuse, logit_normal, velocity
from calid.diffusion.schedule import rectified_flow, variance_preserving
from calid.errors import DataError
from calid.evaluation.metrics import psnr, ssim
from calid.models.autoencoder import Autoencoder
from calid.models.context import Acquired, Context, nearest_context
from calid.models.correspondence import carry
from calid.models.interpolator import Interpolator, LatentFiller, PaperInterpolator
from calid.models.layers import channels_last
from calid.models.store import save_interpolator
from calid.training.latent_interpolator import noise_times
from calid.training.loop import Task

__all__ = [
    "NoiseObjective",
    "RefineObjective",
    "TupleBatch",
    "TupleObjective",
    "interpolator_task",
    "preset_objective",
]


@dataclass(frozen=True)
class TupleBatch:
    """Whole stacks, and tuples that index into them.

    Parameters
    ----------
    acquired
        Slices of all stacks, one after the other.
    context
        Of the targets, indices into them.
    target
        Shape ``(targets,)``, index of the hidden slice; of a film, in every frame.
    noise, uniform, normal
        Random numbers of the objective: ``(targets, channels, h, w)`` and twice ``(targets,)``.
    """

    acquired: Acquired
    context: Context
    target: Tensor
    noise: Tensor
    uniform: Tensor
    normal: Tensor


class TupleObjective(nn.Module):
    """What stage 2 asks of an objective, a preset's or a baseline's; its call takes a `TupleBatch`.

    Parameters
    ----------
    interpolator
        The network that is trained; also its name in checkpoints.
    per_side
        Context slices on either side that its batches have.
    midway
        It learns only slices in the middle of their gap.
    samples
        It is validated with one sample, having no conditional mean.
    validation_steps
        Sampler steps in validation; 0 for the network's own.
    """

    interpolator: LatentFiller
    per_side: int = 2
    midway: bool = False
    samples: bool = False
    validation_steps: int = 0

    @property
    def channels(self) -> int:
        """Of the latents that it learns from."""
        sizes: Any = self.interpolator
        return int(sizes.config.channels)

    def save(self, path: Path, figures: Mapping[str, float]) -> None:
        """Write the interpolator's weights with the latest validation figures."""
        raise NotImplementedError


class RefineObjective(TupleObjective):
    """Default preset: squared error of the mean, and rectified flow on what is left of it.

    Parameters
    ----------
    flow, carry
        Weights of the flow term and of the carried images' squared error, which teaches
        where things go at the resolution of the image.
    """

    interpolator: Interpolator

    def __init__(self, interpolator: Interpolator, flow: float = 0.5, carry: float = 10.0) -> None:
        super().__init__()
        self.interpolator, self.flow, self.carry = interpolator, flow, carry
        self.per_side = interpolator.reach

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        terms, loss, _ = self.terms(batch)
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}

    def terms(self, batch: TupleBatch) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """Terms by name, their weighted sum, and errors of mean latents and carried images.

        Errors count in units of what is to be expected there, so that targets close to a slice,
        which are easy, are not neglected.
        """
        model, truth = self.interpolator, batch.acquired.latents[batch.target]
        aligned, seen = model.align(batch.acquired, batch.context)
        expected = batch.context.gate[:, None, None, None]
        image = batch.acquired.images[batch.target]
        errors = {
            "latent": (aligned.mean - truth) / expected,
            "image": (carry(seen, aligned) - image) / expected,
        }
        regression, carried = (error.square().mean() for error in errors.values())
        # The flow's target is the error of the mean, not a reason for the mean to move.
        residual = (truth - aligned.mean.detach()) / model.residual_size(batch.context)
        t = logit_normal(batch.normal)
        x = diffuse(residual, batch.noise, t, rectified_flow)
        injected = model.denoiser.inject(aligned.pyramid)
        speed = model.denoiser(x, t, injected, batch.context.frames)
        flow = (speed - velocity(residual, batch.noise)).square().mean()
        terms = {"regression": regression, "flow": flow, "carried": carried}
        return terms, regression + self.flow * flow + self.carry * carried, errors

    def save(self, path: Path, figures: Mapping[str, float]) -> None:
        """See `TupleObjective.save`."""
        save_interpolator(self.interpolator, path, figures)


class NoiseObjective(TupleObjective):
    """Paper preset: predict the noise (Ho et al., NeurIPS 2020, eq. 14), T = 1000."""

    interpolator: PaperInterpolator
    midway = True
    samples = True

    def __init__(self, interpolator: PaperInterpolator) -> None:
        super().__init__()
        self.interpolator = interpolator

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss terms of a batch whose targets lie midway between their two neighbours."""
        model, latents = self.interpolator, batch.acquired.latents
        truth = latents[batch.target]
        # The middle two of the context are the adjacent slices.
        middle = batch.context.index.shape[1] // 2
        below, above = (latents[batch.context.index[:, i]] for i in (middle - 1, middle))
        t = noise_times(batch.uniform)
        x = diffuse(truth, batch.noise, t, variance_preserving)
        injected = model.denoiser.inject(model.condition(below, above))
        predicted = model.denoiser(x, t, injected)
        return {"loss": (predicted - batch.noise).square().mean()}

    def save(self, path: Path, figures: Mapping[str, float]) -> None:
        """See `TupleObjective.save`."""
        save_interpolator(self.interpolator, path, figures)


def preset_objective(model: Interpolator | PaperInterpolator) -> TupleObjective:
    """What a preset is trained with."""
    return RefineObjective(model) if isinstance(model, Interpolator) else NoiseObjective(model)


def interpolator_task(
    objective: TupleObjective,
    autoencoder: Autoencoder,
    train: Sequence[Film],
    held_out: Sequence[Film],
    weights: Path,
    size: int,
    stacks: int,
    targets: int,
    seed: int,
    device: torch.device,
) -> Task:
    """Everything the loop needs for stage 2.

    Parameters
    ----------
    objective
        A preset's or a baseline's.
    autoencoder
        Frozen, of stage 1.
    train, held_out
        Films of different subjects.
    weights
        File that the objective saves.
    size
        Crop in pixels.
    stacks, targets
        Stacks a step and process, and hidden slices drawn from each.
    """
    usable = [f for f in train if len(f.positions) >= 3]
    sampler = StackSampler(usable, size, seed, most_slices=14)
    channels_last(objective)

    def encode(images: Tensor) -> Tensor:
        with torch.no_grad():
            return autoencoder.encode(images)

    def enter(images: Tensor) -> Acquired:
        batch = images[:, None].to(device, memory_format=torch.channels_last)
        return Acquired.of(batch, encode)

    def draw(step: int, rank: int) -> TupleBatch:
        generator = seeded(seed, step, 4, rank)
        drawn = sampler.draw(step, rank, stacks)
        contexts, hidden, offset = [], [], 0
        for stack in drawn:
            for _ in range(targets):
                choice = draw_tuple(stack.positions, generator, objective.midway)
                place = stack.positions[[choice.target]]
                context = nearest_context(stack.positions[choice.kept], place, objective.per_side)
                index = torch.from_numpy(choice.kept)[context.index] + offset
                contexts.append(Context(index, context.distance, context.mask))
                hidden.append(choice.target + offset)
            offset += len(stack.images)
        acquired = enter(torch.cat([s.images for s in drawn]))
        count, shape = len(hidden), acquired.latents.shape[1:]
        return TupleBatch(
            acquired,
            Context.concatenate(contexts).to(device),
            torch.tensor(hidden, device=device),
            torch.randn((count, *shape), generator=generator).to(device),
            torch.rand(count, generator=generator).to(device),
            torch.randn(count, generator=generator).to(device),
        )

    shown = [centre_stack(f, 0, size) for f in held_out if len(f.positions) >= 3][::4]
    if not usable or not shown:
        raise DataError(
            "training data",
            "Stage 2 needs stacks of at least 3 slices to train and to validate on.",
            "Add longer stacks.",
        )

    def validate() -> Mapping[str, float]:
        return _hidden_slices(objective, autoencoder, shown, enter)

    export = partial(objective.save, weights)
    return Task(objective, draw, validate, export, stacks * targets, "tuples")


def _hidden_slices(
    objective: TupleObjective,
    autoencoder: Autoencoder,
    stacks: Sequence[TrainingStack],
    enter: Callable[[Tensor], Acquired],
) -> dict[str, float]:
    """PSNR and SSIM of hidden slices, linear beside them.

    The model answers with one sample, or else with its conditional mean.
    """
    model = objective.interpolator
    rows = []
    for number, stack in enumerate(stacks):
        kept, hidden = hide_alternate(len(stack.positions))
        acquired = enter(stack.images[kept])
        for target in hidden:
            filled = model.fill(
                acquired,
                stack.positions[kept],
                stack.positions[[target]],
                draw=partial(torch.randn, generator=seeded(number)) if objective.samples else None,
                steps=objective.validation_steps or model.default_steps,
                temperature=1.0,
            )
            image = autoencoder.decode(filled.latents).cpu().clamp(0, 1)[0, 0]
            truth = stack.images[target].clamp(0, 1)
            linear = stack.images[[target - 1, target + 1]].mean(0).clamp(0, 1)
            rows.append([float(f(x, truth)) for x in (image, linear) for f in (psnr, ssim)])
    figures = np.mean(rows, axis=0)
    names = ("psnr", "ssim", "linear_psnr", "linear_ssim")
    return dict(zip(names, figures.tolist(), strict=True))
