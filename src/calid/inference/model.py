"""A trained pair of networks, and the one thing it does: slices in, slices between them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calid.data.intensity import CEILING
from calid.data.sampling import seeded
from calid.geometry.grid import NetworkGrid
from calid.geometry.orientation import turn, turn_back
from calid.geometry.region import Region
from calid.inference.memory import AT_ONCE, Demand, fit_memory, in_parts
from calid.inference.reconstruct import (
    check_region,
    choose_factor,
    choose_samples,
    densify,
    densify_film,
)
from calid.inference.runtime import Runtime, choose_runtime
from calid.inference.sampling import Sampling
from calid.inference.windows import FEWEST_FRAMES, TOGETHER, windows
from calid.models.autoencoder import Autoencoder
from calid.models.context import Acquired
from calid.models.interpolator import Filled, LatentFiller
from calid.models.surroundings import rendered, sampled
from calid.stack import SliceStack, Volume

__all__ = ["Model", "Sampling"]

FEW = 4
"""Images in one pass: full fields of view at half resolution are the peak of memory."""
ORIENTATIONS = 8
"""Of `calid.geometry.orientation`; samples repeat them."""


class Model:
    """Autoencoder and interpolator of one preset on one device.

    Parameters
    ----------
    autoencoder, interpolator
        Trained networks, already on ``device``.
    preset
        Its name, for the record.
    device
        Where they are.
    runtime
        What computes them; torch in the device's best precision if nothing is said.
    weights
        Files that they come from, by name, for the record.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        interpolator: LatentFiller,
        preset: str,
        device: torch.device,
        *,
        runtime: Runtime | None = None,
        weights: Mapping[str, Path] | None = None,
    ) -> None:
        self.autoencoder, self.interpolator = autoencoder, interpolator
        self.weights = dict(weights or {})
        self.preset, self.device = preset, device
        self.runtime = runtime or choose_runtime(device.type)

    def reconstruct(
        self,
        stack: SliceStack,
        *,
        factor: int | None = None,
        spacing: float | None = None,
        samples: int | None = None,
        steps: int | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        uncertainty: bool = False,
        max_memory: float | None = None,
        frame_by_frame: bool = False,
        region: Region | None = None,
        on_frame: Callable[[int], None] = lambda frame: None,
    ) -> Volume:
        """Reconstruct a dense volume from a sparse stack.

        Films of at least `FEWEST_FRAMES` frames are taken for one heartbeat, whose last frame
        is followed by the first; weights with temporal layers see all of it at once.

        Parameters
        ----------
        stack
            From `calid.read`.
        factor, spacing
            As `calid.inference.reconstruct.choose_factor`.
        samples
            As `calid.inference.reconstruct.choose_samples`.
        steps, temperature, seed
            As `Sampling`.
        uncertainty
            Keep the standard deviation over samples; needs at least 2.
        max_memory
            GB (10^9 bytes) that the process may take at its peak; what is available if nothing
            is said. Less memory means fewer slices at once, not another answer; of a film it
            can mean that fewer frames see each other.
        frame_by_frame
            Reconstruct every frame of a film on its own.
        region
            Where the networks generate, `calid.segmentation.region.heart_region` for instance;
            outside of it the slices are registered and blended. Everywhere if nothing is said.
            Only without samples, which differ everywhere.
        on_frame
            Called with the number of frames done.

        Raises
        ------
        UsageError
            If an option is out of range.
        ResourceError
            If it cannot be done in that memory; said before any work.
        """
        drawn = choose_samples(samples, self.preset, uncertainty)
        sampling = Sampling(drawn, steps, temperature, seed)
        check_region(region, drawn)
        chosen = choose_factor(stack, factor, spacing)
        film = (
            self.interpolator.sees_films and stack.n_frames >= FEWEST_FRAMES and not frame_by_frame
        )
        together = min(stack.n_frames, TOGETHER) if film else 1
        demand = Demand.of(
            stack,
            chosen,
            drawn,
            uncertainty,
            self.interpolator.reach is not None,
            together=together,
        )
        demand, at_once = fit_memory(demand, max_memory, self.device)
        how: dict[str, Any] = {"sampling": sampling, "at_once": at_once, "region": region}
        asked = chosen, uncertainty, on_frame
        if demand.together == 1:
            volume = densify(stack, partial(self.between, **how), *asked)
        else:
            method = partial(self.film, **how, together=demand.together)
            volume = densify_film(stack, method, *asked)
        grid = NetworkGrid.of(stack.shape[2:], stack.pixel_spacing)
        shown = None if region is None else region.native(grid)
        return replace(volume, frames_together=demand.together, region=shown)

    def between(
        self,
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
        sampling: Sampling,
        at_once: int = AT_ONCE,
        region: Region | None = None,
    ) -> NDArray[np.float32]:
        """Generate slices between the slices of one frame.

        Parameters
        ----------
        images
            Acquired slices of one frame, ``(slices, height, width)``, window units.
        positions, targets
            mm, increasing; every target strictly inside a gap.
        spacing
            In-plane ``(row, column)`` spacing in mm.
        sampling
            How to draw them.
        at_once
            Most targets that go through the interpolator together.
        region
            As `reconstruct`.

        Returns
        -------
        NDArray
            ``(samples, targets, height, width)``, window units in ``[0, 1.5]``. The same
            seed gives the same slices whatever other targets are asked for. Several samples are
            to be averaged: each has its share of the grain that one alone would have.

        Raises
        ------
        ResourceError
            If memory runs out even for one target at a time.
        """
        samples = max(sampling.samples, 1)
        out = np.empty((samples, len(targets), *images.shape[-2:]), np.float32)
        given = images[None], positions, targets, spacing, sampling, at_once
        for some, drawn in self.film(*given, together=1, region=region):
            out[:, some] = drawn[:, 0]
        return out

    @torch.no_grad()
    def film(
        self,
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
        sampling: Sampling,
        at_once: int = AT_ONCE,
        together: int = TOGETHER,
        region: Region | None = None,
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Generate slices between the slices of a film, gap after gap.

        Parameters
        ----------
        images
            Acquired slices of one heartbeat, ``(frames, slices, height, width)``, window units.
        positions, targets, spacing, sampling, region
            As `between`.
        at_once
            Most targets that go through the interpolator together, but never fewer than one in
            all frames that see each other.
        together
            Most frames that see each other. Longer films go through in overlapping windows,
            which are blended.

        Yields
        ------
        tuple
            Which targets, a slice of them, and ``(samples, frames, targets, height, width)``,
            window units in ``[0, 1.5]``. All frames share their noise.

        Raises
        ------
        ResourceError
            If memory runs out even for one target at a time.
        """
        grid = NetworkGrid.of(images.shape[-2:], spacing)
        acquired = grid.enter(torch.from_numpy(images).flatten(0, 1)).clamp(0, CEILING)
        frames, samples = len(images), max(sampling.samples, 1)
        # Every sample sees the stack turned another way: what the networks owe to the
        # orientation of the image averages out with the noise.
        turned = (turn(acquired, number) for number in range(min(samples, ORIENTATIONS)))
        known = [self._known(images, at_once, region) for images in turned]
        gaps = np.searchsorted(positions, targets)
        for gap in np.unique(gaps):
            near = self._near(len(positions), int(gap))
            inside = np.flatnonzero(gaps == gap)
            some = slice(int(inside[0]), int(inside[-1]) + 1)
            out = np.empty((samples, frames, len(inside), *images.shape[-2:]), np.float32)
            for number in range(samples):
                drawn = torch.zeros(frames, len(inside), *acquired.shape[-2:])
                # One stream per gap: all of its targets, and all frames, share their noise.
                keys = (sampling.seed, int(gap), number)
                for window in windows(frames, together):
                    seen = window.of(known[number % ORIENTATIONS], len(positions), near)
                    place = positions[near], targets[some]
                    part = self._fill(seen, *place, sampling, keys, at_once)
                    weight = torch.from_numpy(window.weight)[:, None, None, None]
                    drawn[window.index] += weight * part
                native = grid.leave(turn_back(drawn.flatten(0, 1), number))
                np.clip(native.numpy().reshape(out.shape[1:]), 0, CEILING, out=out[number])
            yield some, out

    def _known(self, acquired: Tensor, at_once: int, region: Region | None) -> Acquired:
        """Slices ``(slices, height, width)`` of the networks' grid, encoded once for all gaps."""
        images = self._batch(acquired)
        known = Acquired(images, images, self._encode, region=region)
        latents = in_parts(lambda i: self._encode(known.cut(images[i])), len(images), at_once)
        return replace(known, latents=torch.cat(latents))

    def _fill(
        self,
        seen: Acquired,
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        sampling: Sampling,
        keys: tuple[int, ...],
        at_once: int,
    ) -> Tensor:
        """One gap ``(frames, targets, height, width)`` on the networks' grid, on the CPU."""
        steps = sampling.steps or self.interpolator.default_steps
        frames = seen.frames.count

        def fill(some: slice) -> Tensor:
            # Every part begins the same stream again.
            draw = partial(torch.randn, generator=seeded(*keys)) if sampling.samples else None
            with self.runtime.autocast():
                filled = self.interpolator.fill(
                    seen, positions, targets[some], draw, steps, sampling.temperature
                )
            # Samples share their grain, so averaging does not wear it off as it does what they
            # drew: the more samples, the nearer the average is to be to the mean.
            vividness = sampling.temperature / max(sampling.samples, 1)
            image: Tensor = self._render(filled, vividness).unflatten(0, (frames, -1))
            return image

        divisible = self.interpolator.reach is not None
        size = max(1, at_once // frames) if divisible else len(targets)
        return torch.cat(in_parts(fill, len(targets), size, divisible), 1)

    def _near(self, count: int, gap: int) -> slice:
        """The slices that targets in a gap depend on; the same number for all gaps if possible.

        ``gap`` is the index of its upper slice.
        """
        if self.interpolator.reach is None:
            return slice(0, count)
        first = max(0, min(gap - self.interpolator.reach, count - 2 * self.interpolator.reach))
        return slice(first, first + 2 * self.interpolator.reach)

    @torch.no_grad()
    def recode(
        self, images: NDArray[np.float32], spacing: tuple[float, float]
    ) -> NDArray[np.float32]:
        """Images ``(slices, height, width)`` through the autoencoder and back.

        The ceiling of everything that is generated in its latent space.
        """
        grid = NetworkGrid.of(images.shape[-2:], spacing)
        latents = self._encode(self._batch(grid.enter(torch.from_numpy(images)).clamp(0, CEILING)))
        return grid.leave(self._decode(latents)[:, 0].cpu()).clamp(0, CEILING).numpy()

    def _encode(self, images: Tensor) -> Tensor:
        with self.runtime.autocast():
            parts = [self.autoencoder.encode(part) for part in images.split(AT_ONCE)]
        return torch.cat(parts)

    def _decode(self, latents: Tensor) -> Tensor:
        with self.runtime.autocast():
            parts = [self.autoencoder.decode(z) for z in latents.split(FEW)]
        return torch.cat(parts)

    def _render(self, filled: Filled, vividness: float) -> Tensor:
        """Images ``(targets, height, width)`` on the networks' grid."""
        drawn = self._decode(filled.latents)
        if filled.around is None:
            image = drawn
        elif filled.mean is None:
            image = rendered(drawn, filled.around, vividness)
        else:
            image = sampled(drawn, self._decode(filled.mean), filled.around, vividness)
        return image[:, 0].cpu()

    def _batch(self, images: Tensor) -> Tensor:
        return images[:, None].to(self.device, memory_format=torch.channels_last)
