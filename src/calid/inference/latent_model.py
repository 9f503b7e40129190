"""From the acquired slices of one frame to the slices between them, by a `LatentInterpolator`.

Images go to the interpolator's grid, are encoded once, and every gap is answered by itself: its
targets share their noise, so that they are one piece of anatomy. What is generated is decoded and,
close to an acquired slice, gives way to registered pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calid.data.intensity import CEILING
from calid.data.sampling import seeded
from calid.geometry.pixels import PixelGrid
from calid.inference.memory import in_parts
from calid.inference.runtime import Runtime
from calid.models.autoencoder import Autoencoder
from calid.models.latent_interpolator import LatentInterpolator, Neighbours, depth_for, midpoints
from calid.models.motion import registered

__all__ = ["Answer", "LatentModel"]


@dataclass(frozen=True)
class Answer:
    """What is drawn between the slices.

    Parameters
    ----------
    dial
        From 0, the conditional mean, to 1, as crisp as a real slice: a straight line in pixels
        between the two (Freirich et al., NeurIPS 2021).
    samples
        Posterior samples to draw instead; 0 for the dial's answer. The paper's preset only samples.
    steps
        Of the transport, or of the sampler of every sample.
    seed
        Of all noise.
    """

    dial: float = 0.7
    samples: int = 0
    steps: int = 12
    seed: int = 0


class LatentModel:
    """Autoencoder and interpolator of one preset.

    Parameters
    ----------
    autoencoder, interpolator
        Trained networks, on the runtime's device.
    runtime
        Device and precision.
    at_once
        Most images in one pass of a network.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        interpolator: LatentInterpolator,
        runtime: Runtime,
        at_once: int = 8,
    ) -> None:
        self.autoencoder, self.interpolator = autoencoder, interpolator
        self.runtime, self.at_once = runtime, at_once

    @torch.no_grad()
    def between(
        self,
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
        answer: Answer,
    ) -> NDArray[np.float32]:
        """Slices at the targets.

        Parameters
        ----------
        images
            Acquired slices of one frame, ``(slices, height, width)``, window units.
        positions, targets
            mm, increasing; every target strictly inside a gap.
        spacing
            In-plane ``(row, column)`` spacing in mm.
        answer
            What is drawn.

        Returns
        -------
        NDArray
            ``(samples, targets, height, width)``, window units in ``[0, 1.5]``; one sample where
            none is asked for.
        """
        grid = PixelGrid.of(images.shape, spacing)
        acquired = grid.enter(torch.from_numpy(images)).clamp(0, CEILING).to(self.runtime.device)
        latents = self._encode(acquired)
        out = np.empty((max(answer.samples, 1), len(targets), *images.shape[-2:]), np.float32)
        gaps = np.searchsorted(positions, targets)
        for gap in np.unique(gaps):
            inside = np.flatnonzero(gaps == gap)
            drawn = self._gap(acquired, latents, positions, targets[inside], int(gap), answer)
            for number, part in enumerate(drawn):
                out[number, inside] = grid.leave(part.cpu()).clamp(0, CEILING).numpy()
        return out

    def recode(
        self, images: NDArray[np.float32], spacing: tuple[float, float]
    ) -> NDArray[np.float32]:
        """Images ``(slices, height, width)`` through the autoencoder and back."""
        grid = PixelGrid.of(images.shape, spacing)
        entered = grid.enter(torch.from_numpy(images)).clamp(0, CEILING).to(self.runtime.device)
        with torch.no_grad():
            shown = self._decode(self._encode(entered)).cpu()
        return grid.leave(shown).clamp(0, CEILING).numpy()

    def _gap(
        self,
        acquired: Tensor,
        latents: Tensor,
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        upper: int,
        answer: Answer,
    ) -> Tensor:
        """Images ``(samples, targets, ...)`` on the grid, in the gap below slice ``upper``."""
        noise = [
            torch.randn((1, *latents.shape[1:]), generator=seeded(answer.seed, upper, number))
            for number in range(max(answer.samples, 1))
        ]
        if not self.interpolator.config.registered:
            adjacent = latents[upper - 1 : upper + 1]
            return torch.stack(
                [self._midpoints(adjacent, positions, targets, upper, n, answer) for n in noise]
            )
        seen, moved = self.neighbours(acquired, latents, positions, targets, upper)
        with self.runtime.autocast():
            mean = self.interpolator.mean(seen)
            draws = [n.to(mean).expand_as(mean) for n in noise]
            if answer.samples:
                drawn = [self.interpolator.sample(seen, n, answer.steps) for n in draws]
            else:
                drawn = [self.interpolator.crisp(seen, mean, draws[0], answer.steps)]
        shown = [self._decode(z) for z in drawn]
        if not answer.samples:
            # x = D(mu) + dial (D(z) - D(mu)), in pixels.
            expected = self._decode(mean)
            shown = [expected + answer.dial * (shown[0] - expected)]
        # g^2 x + (1 - g^2) b: near an acquired slice registered pixels know more than any decoder.
        weight = seen.gate[:, 0].square()
        blend = (seen.share[..., 0] * moved).sum(1)
        return torch.stack([weight * x + (1 - weight) * blend for x in shown])

    def neighbours(
        self,
        acquired: Tensor,
        latents: Tensor,
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        upper: int,
    ) -> tuple[Neighbours, Tensor]:
        """What surrounds the targets of a gap, and the registered images ``(targets, 2, ...)``."""
        order = np.array([upper - 1, upper, upper - 2, upper + 1])
        there = (order >= 0) & (order < len(positions))
        index = order.clip(0, len(positions) - 1)
        apart = np.where(there, positions[index] - targets[:, None], 0.0)
        distance = torch.from_numpy(apart).float().to(latents.device)
        count = len(targets)
        pair = latents[index].expand(count, *[-1] * 4)
        beyond = pair[:, 2:] * torch.from_numpy(there[2:]).to(latents)[:, None, None, None]
        seen = Neighbours(pair[:, :2], distance, pair[:, :2], beyond)
        moved = registered(
            acquired[index[:2]].expand(count, -1, -1, -1), distance[:, :2], seen.gate
        )
        carried = self._encode(moved.flatten(0, 1)).unflatten(0, (count, 2))
        return Neighbours(pair[:, :2], distance, carried, beyond), moved

    def _midpoints(
        self,
        adjacent: Tensor,
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        upper: int,
        noise: Tensor,
        answer: Answer,
    ) -> Tensor:
        """The paper's way: midpoints until there are as many as targets; the nearest of them."""
        depth = depth_for(len(targets))
        low, high = positions[upper - 1], positions[upper]

        def between(below: Tensor, above: Tensor) -> Tensor:
            pair = torch.stack([below, above], 1)
            half = (high - low) / 2
            distance = pair.new_tensor([[-half, half, 0, 0]]).expand(len(pair), -1)
            start = noise.to(below).expand_as(below)
            return self.interpolator.sample(
                Neighbours(pair, distance, pair, pair), start, answer.steps
            )

        with self.runtime.autocast():
            dense = midpoints(adjacent, depth, between)
        place = np.rint((targets - low) / (high - low) * 2**depth).astype(int)
        return self._decode(dense[torch.from_numpy(place.clip(1, 2**depth - 1))])

    def _encode(self, images: Tensor) -> Tensor:
        """Latents of images ``(slices, height, width)``, float32."""

        def encode(some: slice) -> Tensor:
            batch = images[some, None].contiguous(memory_format=torch.channels_last)
            with self.runtime.autocast():
                return self.autoencoder.encode(batch).float()

        return torch.cat(in_parts(encode, len(images), self.at_once))

    def _decode(self, latents: Tensor) -> Tensor:
        """Images ``(slices, height, width)``."""

        def decode(some: slice) -> Tensor:
            batch = latents[some].contiguous(memory_format=torch.channels_last)
            with self.runtime.autocast():
                return self.autoencoder.decode(batch)[:, 0].float()

        return torch.cat(in_parts(decode, len(latents), self.at_once))
