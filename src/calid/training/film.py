"""Stage 3: train the layers that mix over frames, on films; all that knows single frames is kept.

Hidden slices of whole heartbeats teach what stage 2 teaches, and how the answer moves in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from calid.data.bank import Film
from calid.data.film_sampling import FilmSampler, TrainingFilm, centre_film
from calid.data.sampling import seeded
from calid.data.sparsify import draw_tuple, hide_alternate
from calid.errors import DataError
from calid.evaluation.metrics import psnr
from calid.evaluation.temporal import temporal_error
from calid.inference.windows import FEWEST_FRAMES, TOGETHER, windows
from calid.models.autoencoder import Autoencoder
from calid.models.context import Acquired, Context, nearest_context
from calid.models.interpolator import Interpolator
from calid.models.layers import channels_last
from calid.models.surroundings import expected
from calid.models.temporal import Frames, TemporalAttention
from calid.training.interpolator import RefineObjective, TupleBatch
from calid.training.loop import Task

__all__ = ["FilmObjective", "film_task"]


class FilmObjective(RefineObjective):
    """The default preset on films: the objective of stage 2, and how the mean moves.

    Only temporal layers are trained.

    Parameters
    ----------
    interpolator
        With temporal layers.
    motion
        Weight of the squared error of the change from frame to frame, of the mean latent and of
        the carried image, in proportion to the weights of these themselves.
    """

    def __init__(self, interpolator: Interpolator, motion: float = 0.5) -> None:
        super().__init__(interpolator.requires_grad_(False))
        self.motion = motion
        for module in interpolator.modules():
            if isinstance(module, TemporalAttention):
                module.requires_grad_(True)

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss terms of a batch of one film."""
        terms, loss, errors = self.terms(batch)
        for name, error in errors.items():
            terms[f"{name}_change"] = _change(error, batch.context.frames).square().mean()
        change = terms["latent_change"] + self.carry * terms["image_change"]
        return {
            "loss": loss + self.motion * change,
            **{name: term.detach() for name, term in terms.items()},
        }


def _change(error: Tensor, frames: Frames) -> Tensor:
    """From each frame to the next, and from the last to the first where the cycle is whole."""
    film: Tensor = error.unflatten(0, (frames.count, -1))
    following = film.roll(-1, 0) - film
    return following if frames.count == frames.cycle else following[:-1]


def film_task(
    objective: FilmObjective,
    autoencoder: Autoencoder,
    train: Sequence[Film],
    held_out: Sequence[Film],
    weights: Path,
    size: int,
    frames: int,
    targets: int,
    seed: int,
    device: torch.device,
) -> Task:
    """Everything the loop needs for stage 3.

    Parameters
    ----------
    objective
        Of a network with temporal layers.
    autoencoder
        Frozen, of stage 1.
    train, held_out
        Films of different subjects; those with fewer than `FEWEST_FRAMES` frames or three
        slices are left aside.
    weights
        File that the objective saves.
    size
        Crop in pixels.
    frames, targets
        Most frames of the one film of a step and process, and hidden slices drawn from it.

    Raises
    ------
    DataError
        If there is no film to train or none to validate on.
    """
    usable, shown = ([f for f in films if _is_film(f)] for films in (train, held_out))
    if not usable or not shown:
        raise DataError(
            "training data",
            f"Films have {FEWEST_FRAMES} frames and 3 slices or more, to train and to validate on.",
            "Add folders of cine stacks.",
        )
    sampler = FilmSampler(usable, size, frames, seed)
    channels_last(objective)

    def enter(images: Tensor, beat: Frames) -> Acquired:
        batch = images.flatten(0, 1)[:, None]
        batch = batch.to(device, memory_format=torch.channels_last)
        with torch.no_grad():
            return Acquired.of(batch, autoencoder.encode, beat)

    def draw(step: int, rank: int) -> TupleBatch:
        generator = seeded(seed, step, 7, rank)
        film = sampler.draw(step, rank)
        contexts, hidden = [], []
        for _ in range(targets):
            choice = draw_tuple(film.positions, generator)
            place = film.positions[[choice.target]]
            context = nearest_context(film.positions[choice.kept], place, objective.per_side)
            index = torch.from_numpy(choice.kept)[context.index]
            contexts.append(Context(index, context.distance, context.mask))
            hidden.append(torch.tensor([[choice.target]]))
        one = Context.concatenate(contexts)
        # Encoding is most of the work: slices that no target sees are left out.
        used, place = torch.cat([one.index, torch.cat(hidden)], 1).unique(return_inverse=True)
        one = replace(one, index=place[:, :-1])
        count, slices = len(film.images), len(used)
        acquired = enter(film.images[:, used], Frames(count, film.cycle))
        target = place[:, -1] + slices * torch.arange(count)[:, None]
        # As in reconstruction, all frames share their noise.
        noise = torch.randn((targets, *acquired.latents.shape[1:]), generator=generator)
        uniform = torch.rand(targets, generator=generator)
        normal = torch.randn(targets, generator=generator)
        return TupleBatch(
            acquired,
            one.over(acquired.frames, slices).to(device),
            target.flatten().to(device),
            noise.repeat(count, 1, 1, 1).to(device),
            uniform.repeat(count).to(device),
            normal.repeat(count).to(device),
        )

    films = [centre_film(f, size) for f in shown[:: max(1, len(shown) // 5)]]
    figures = partial(_figures, objective.interpolator, autoencoder, films, enter)

    @cache
    def alone() -> Mapping[str, float]:
        """Of single frames: nothing that is trained changes them."""
        return {f"single_{name}": value for name, value in figures(1).items()}

    def validate() -> Mapping[str, float]:
        return {**figures(TOGETHER), **alone()}

    return Task(objective, draw, validate, partial(objective.save, weights))


def _is_film(film: Film) -> bool:
    return len(film.frames) >= FEWEST_FRAMES and len(film.positions) >= 3


def _figures(
    model: Interpolator,
    autoencoder: Autoencoder,
    films: Sequence[TrainingFilm],
    enter: Callable[[Tensor, Frames], Acquired],
    together: int,
) -> dict[str, float]:
    """PSNR of the mean's images and its temporal error, with so many frames at most together."""
    quality, error = [], []
    for film in films:
        kept, hidden = hide_alternate(len(film.positions))
        truth = film.images[:, hidden].clamp(0, 1)
        answer = torch.zeros_like(truth)
        for window in windows(film.cycle, together):
            acquired = enter(film.images[window.index][:, kept], window.frames)
            weight = torch.from_numpy(window.weight)[:, None, None]
            for number, target in enumerate(hidden):
                place = film.positions[kept], film.positions[[target]]
                filled = model.fill(acquired, *place, None, model.default_steps, 1.0)
                assert filled.around is not None
                images = expected(autoencoder.decode(filled.latents), filled.around)
                answer[window.index, number] += weight * images[:, 0].cpu()
        answer = answer.clamp(0, 1)
        quality += psnr(answer.flatten(0, 1), truth.flatten(0, 1)).tolist()
        error += temporal_error(answer.numpy(), truth.numpy()).tolist()
    return {"psnr": float(np.mean(quality)), "temporal_error": float(np.nanmean(error))}
