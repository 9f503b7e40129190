"""Stage 1: train the autoencoder on single slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.data.augment import random_pose, uniform
from calid.data.bank import Film
from calid.data.sampling import StackSampler, centre_stack, seeded
from calid.evaluation.metrics import psnr
from calid.models.autoencoder import Autoencoder
from calid.models.layers import channels_last
from calid.models.store import save_autoencoder
from calid.training.loop import Task

__all__ = ["AutoencoderObjective", "SliceBatch", "autoencoder_task"]


@dataclass(frozen=True)
class SliceBatch:
    """Images ``(batch, 1, size, size)``, posterior noise, and a pose or none."""

    images: Tensor
    noise: Tensor
    pose: Tensor | None


class AutoencoderObjective(nn.Module):
    """Absolute and gradient error, a weak KL term, and warp equivariance.

    On some batches the latent is warped and must decode to the warped image (the idea of
    EQ-VAE, Kouzelis et al., 2025): stage 2 moves latents about, so they have to bear it.
    """

    def __init__(
        self, autoencoder: Autoencoder, gradient: float = 0.5, divergence: float = 2e-4
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.gradient, self.divergence = gradient, divergence

    def forward(self, batch: SliceBatch) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        posterior = self.autoencoder.posterior(batch.images)
        latents, images = posterior.sample(batch.noise), batch.images
        valid = torch.ones_like(images)
        if batch.pose is not None:
            latents = _warp(latents, batch.pose)
            images, valid = _warp(images, batch.pose), _warp(valid, batch.pose)
        error = (self.autoencoder.render(latents) - images) * (valid > 0.99)
        absolute = error.abs().mean()
        slope = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = posterior.divergence()
        loss = absolute + self.gradient * slope + self.divergence * kl
        return {"loss": loss, "absolute": absolute.detach(), "kl": kl.detach()}


def _warp(x: Tensor, pose: Tensor) -> Tensor:
    """Apply one pose in units of half the image to maps of any resolution."""
    grid = F.affine_grid(pose.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid.to(x), align_corners=False)


@torch.no_grad()
def measure_latents(autoencoder: Autoencoder, images: Tensor) -> None:
    """Set the buffers that give latents of ``images`` mean 0 and variance 1 per channel."""
    raw = torch.cat([autoencoder.posterior(part).mean for part in images.split(32)])
    autoencoder.mean.copy_(raw.mean((0, 2, 3))[:, None, None])
    autoencoder.std.copy_(raw.std((0, 2, 3))[:, None, None])


def autoencoder_task(
    autoencoder: Autoencoder,
    train: Sequence[Film],
    held_out: Sequence[Film],
    weights: Path,
    size: int,
    batch: int,
    seed: int,
    device: torch.device,
    equivariance: float = 0.25,
) -> Task:
    """Everything the loop needs for stage 1.

    Parameters
    ----------
    train, held_out
        Films of different subjects.
    weights
        File that `save_autoencoder` writes.
    size
        Crop in pixels.
    batch
        Slices a step and process.
    equivariance
        Share of the steps whose latents are warped.
    """
    sampler = StackSampler(train, size, seed)
    objective = channels_last(AutoencoderObjective(autoencoder))

    def draw(step: int, rank: int) -> SliceBatch:
        per_stack = 2
        stacks = sampler.draw(step, rank, batch // per_stack)
        generator = seeded(seed, step, 3, rank)
        slices = []
        for stack in stacks:
            picks = torch.randint(len(stack.images), (per_stack,), generator=generator)
            slices.append(stack.images[picks])
        images = torch.cat(slices)[:, None]
        side = images.shape[-1] // autoencoder.downsampling
        shape = (len(images), autoencoder.config.latent_channels, side, side)
        noise = torch.randn(shape, generator=generator)
        pose = None
        if uniform(0, 1, generator) < equivariance:
            pose = random_pose(generator, shift=0.1).to(device)
        return SliceBatch(
            images.to(device, memory_format=torch.channels_last), noise.to(device), pose
        )

    stills = torch.cat([centre_stack(f, 0, size).images for f in held_out])[:, None]
    typical = torch.cat([s.images for s in sampler.draw(0, 10**6, 32)])[:, None]

    def validate() -> Mapping[str, float]:
        shown = torch.cat(
            [autoencoder.render(autoencoder.posterior(x.to(device)).mean) for x in stills.split(32)]
        )
        return {"psnr": float(psnr(shown.cpu().clamp(0, 1), stills.clamp(0, 1)).mean())}

    def export(figures: Mapping[str, float]) -> None:
        measure_latents(autoencoder, typical.to(device))
        save_autoencoder(autoencoder, weights, figures)

    return Task(objective, draw, validate, export)
