"""Stage 1: train the autoencoder on single slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from calid.data.augment import augment_intensity, crop, random_crop, seeded, uniform
from calid.data.bank import TrainingFilm, window_units
from calid.evaluation.metrics import psnr, sharpness, ssim
from calid.models.autoencoder import Autoencoder
from calid.models.layers import channels_last
from calid.models.store import save_autoencoder
from calid.training.loop import Task

__all__ = ["AutoencoderObjective", "SliceBatch", "autoencoder_task"]


@dataclass(frozen=True)
class SliceBatch:
    """Some images and the random numbers of a step.

    Parameters
    ----------
    images
        ``(batch, 1, size, size)``.
    noise
        Standard normal, for the posterior.
    share
        Weight with which each image is mixed with the next one, if they are mixed.
    """

    images: Tensor
    noise: Tensor
    share: float | None


class AutoencoderObjective(nn.Module):
    """Absolute and gradient error, a weak KL term, and linearity.

    ``L = |D(z) - x| + gradient |d(D(z) - x)| + divergence KL(q(z|x) || N(0, 1))``. On some batches
    pairs of latents are mixed and must decode to the mixed images: stage 2 blends latents of
    neighbouring slices and regresses to their mean, which should look like the blend and the mean
    of images.
    """

    def __init__(
        self, autoencoder: Autoencoder, gradient: float = 0.5, divergence: float = 5e-5
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.gradient, self.divergence = gradient, divergence

    def forward(self, batch: SliceBatch) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        posterior = self.autoencoder.posterior(batch.images)
        latents, images = posterior.sample(batch.noise), batch.images
        if batch.share is not None:
            latents, images = (x.lerp(x.roll(1, 0), batch.share) for x in (latents, images))
        error = self.autoencoder.render(latents) - images
        absolute = error.abs().mean()
        slope = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = posterior.divergence()
        loss = absolute + self.gradient * slope + self.divergence * kl
        return {"loss": loss, "absolute": absolute.detach(), "kl": kl.detach()}


@torch.no_grad()
def measure_latents(autoencoder: Autoencoder, images: Tensor) -> None:
    """Set the buffers that give latents of ``images`` mean 0 and variance 1 per channel."""
    raw = torch.cat([autoencoder.posterior(part).mean for part in images.split(32)])
    autoencoder.mean.copy_(raw.mean((0, 2, 3))[:, None, None])
    autoencoder.std.copy_(raw.std((0, 2, 3))[:, None, None])


def autoencoder_task(
    autoencoder: Autoencoder,
    train: Sequence[TrainingFilm],
    held_out: Sequence[TrainingFilm],
    weights: Path,
    size: int,
    batch: int,
    seed: int,
    device: torch.device,
    mixed: float = 0.2,
) -> Task:
    """Everything the loop needs for stage 1.

    Parameters
    ----------
    train, held_out
        Films of different subjects, in pixels of their own.
    weights
        File that `save_autoencoder` writes.
    size
        Crop in pixels, a multiple of 4.
    batch
        Slices a step and process.
    mixed
        Share of the steps on which latents are mixed.
    """
    objective = channels_last(AutoencoderObjective(autoencoder))

    def images(generator: Generator, count: int) -> Tensor:
        picks = torch.randint(len(train), (count,), generator=generator)
        drawn = [_slice(train[i], size, generator) for i in picks.tolist()]
        return torch.stack(drawn).to(device, memory_format=torch.channels_last)

    def draw(step: int, rank: int) -> SliceBatch:
        generator = seeded(seed, step, rank)
        side = size // autoencoder.downsampling
        noise = torch.randn(
            batch, autoencoder.config.latent_channels, side, side, generator=generator
        )
        share = uniform(0, 1, generator) if uniform(0, 1, generator) < mixed else None
        return SliceBatch(images(generator, batch), noise.to(device), share)

    still = torch.eye(2, 3)
    stills = torch.cat([crop(window_units(f.frames[0]), size, still) for f in held_out])[:, None]

    def validate() -> Mapping[str, float]:
        parts = [
            autoencoder.render(autoencoder.posterior(x.to(device)).mean) for x in stills.split(32)
        ]
        shown, truth = torch.cat(parts).cpu()[:, 0].clamp(0, 1), stills[:, 0].clamp(0, 1)
        measures = {"psnr": psnr, "ssim": ssim, "sharpness": sharpness}
        return {name: float(of(shown, truth).mean()) for name, of in measures.items()}

    def export(figures: Mapping[str, float]) -> None:
        measure_latents(autoencoder, images(seeded(seed, 2**32), 128))
        save_autoencoder(autoencoder, weights, figures)

    return Task(objective, draw, validate, export, batch, "slices")


def _slice(film: TrainingFilm, size: int, generator: Generator) -> Tensor:
    """A random crop ``(1, size, size)`` of a random slice."""
    frame, number = (int(torch.randint(n, (), generator=generator)) for n in film.frames.shape[:2])
    image = random_crop(window_units(film.frames[frame, number : number + 1]), size, generator)
    return augment_intensity(image, generator)
