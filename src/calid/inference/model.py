"""From the acquired slices of a stack to the slices between them, by the networks of a preset.

Images go to the interpolator's grid and are encoded once. Every gap is answered by itself, for all
frames: they share their noise, so that its targets are one piece of anatomy and its frames one
film. What is generated is decoded and, close to an acquired slice, gives way to registered pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calid.data.intensity import CEILING
from calid.data.sampling import seeded
from calid.errors import UsageError
from calid.geometry.pixels import PixelGrid
from calid.geometry.region import Region
from calid.inference.answer import Answer
from calid.inference.memory import AT_ONCE, Demand, fit_memory, in_parts
from calid.inference.reconstruct import (
    check_region,
    choose_factor,
    choose_samples,
    fill,
    plan,
)
from calid.inference.runtime import Runtime, choose_runtime
from calid.models.autoencoder import Autoencoder
from calid.models.interpolator import LatentInterpolator, Neighbours, depth_for, midpoints
from calid.models.motion import STILL, Frames, registered
from calid.stack import SliceStack, Volume

__all__ = ["FEWEST_FRAMES", "Film", "Model"]

FEWEST_FRAMES = 4
"""Shorter films are no heartbeat (diastole and systole, say): their frames stand alone."""


@dataclass(frozen=True)
class Film:
    """The acquired slices of a film as the networks see them; a stack is a film of one frame.

    Parameters
    ----------
    images
        On the padded grid, ``(frames, slices, height, width)``, window units.
    latents
        Of the images inside the region, ``(frames, slices, channels, h, w)``.
    positions
        Of the slices in mm, increasing.
    frames
        Whether they are one heartbeat, whose frames are registered together.
    region
        Where networks generate; everywhere without.
    """

    images: Tensor
    latents: Tensor
    positions: NDArray[np.float64]
    frames: Frames = STILL
    region: Region | None = None

    def cut(self, images: Tensor) -> Tensor:
        """What networks see of images ``(..., height, width)``."""
        return images if self.region is None else self.region.cut(images)


@dataclass(frozen=True)
class Gap:
    """Targets between two slices, in all frames, frame by frame.

    Parameters
    ----------
    neighbours
        Of every target in every frame.
    blend
        The registered slices weighted by distance, ``(frames * targets, height, width)``, in
        pixels.
    """

    neighbours: Neighbours
    blend: Tensor


class Model:
    """Autoencoder and interpolator of one preset.

    Parameters
    ----------
    autoencoder, interpolator
        Trained networks, on the runtime's device.
    preset
        Its name, for the record.
    runtime
        Device and precision; the best there is if nothing is said.
    weights
        Files that they come from, by name, for the record.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        interpolator: LatentInterpolator,
        preset: str,
        *,
        runtime: Runtime | None = None,
        weights: Mapping[str, Path] | None = None,
    ) -> None:
        self.autoencoder, self.interpolator = autoencoder, interpolator
        self.weights, self.preset = dict(weights or {}), preset
        self.runtime = runtime or choose_runtime()

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.runtime.device

    def reconstruct(
        self,
        stack: SliceStack,
        *,
        factor: int | None = None,
        spacing: float | None = None,
        dial: float | None = None,
        samples: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        uncertainty: bool = False,
        max_memory: float | None = None,
        frame_by_frame: bool = False,
        region: Region | None = None,
        on_frame: Callable[[int], None] = lambda frame: None,
    ) -> Volume:
        """Reconstruct a dense volume from a sparse stack.

        Films of at least `FEWEST_FRAMES` frames are taken for one heartbeat, whose last frame
        is followed by the first: their frames are registered together.

        Parameters
        ----------
        stack
            From `calid.read`.
        factor, spacing
            As `calid.inference.reconstruct.choose_factor`.
        samples
            As `calid.inference.reconstruct.choose_samples`.
        dial, steps, seed
            As `Answer`.
        uncertainty
            Keep the standard deviation over samples; needs at least 2.
        max_memory
            GB (10^9 bytes) that the process may take at its peak; what is available if nothing
            is said. Less memory means fewer slices at once, not another answer.
        frame_by_frame
            Register every frame of a film on its own.
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
        answer = self.resolved(Answer(dial, drawn, steps, seed))
        check_region(region, drawn)
        chosen = choose_factor(stack, factor, spacing)
        together = stack.n_frames >= FEWEST_FRAMES and not frame_by_frame
        demand = Demand.of(stack, chosen, drawn, uncertainty)
        at_once = fit_memory(demand, max_memory, self.device)
        method = partial(
            self.film, answer=answer, at_once=at_once, together=together, region=region
        )
        volume = fill(stack, method, plan(stack, chosen), uncertainty, on_frame)
        grid = PixelGrid.of(stack.shape, stack.pixel_spacing)
        shown = None if region is None else region.native(grid)
        return replace(volume, frames_together=stack.n_frames if together else 1, region=shown)

    def resolved(self, answer: Answer) -> Answer:
        """An answer in which everything is decided: what it leaves open, the weights say.

        Raises
        ------
        UsageError
            If the preset cannot give it.
        """
        config = self.interpolator.config
        if not config.registered and not answer.samples:
            raise UsageError(
                "--samples", f"The preset {self.preset} only draws samples.", "Ask for 1 or more."
            )
        dial = answer.dial
        if dial is None and not answer.samples:
            dial = config.dial
        steps = config.sampler_steps if answer.samples else config.transport_steps
        return replace(answer, dial=dial, steps=answer.steps or steps)

    def between(
        self,
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
        answer: Answer,
        at_once: int = AT_ONCE,
        region: Region | None = None,
    ) -> NDArray[np.float32]:
        """Generate slices between the slices of one frame.

        Parameters
        ----------
        images
            Acquired slices of one frame, ``(slices, height, width)``, window units.
        positions, targets, spacing, answer, at_once, region
            As `film`.

        Returns
        -------
        NDArray
            ``(samples, targets, height, width)``, as `film`.
        """
        parts = self.film(images[None], positions, targets, spacing, answer, at_once, False, region)
        return np.concatenate([drawn[:, 0] for _, drawn in parts], axis=1)

    @torch.no_grad()
    def film(
        self,
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
        answer: Answer,
        at_once: int = AT_ONCE,
        together: bool = True,
        region: Region | None = None,
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Generate slices between the slices of a film, a few targets of a gap after the other.

        Parameters
        ----------
        images
            Acquired slices, ``(frames, slices, height, width)``, window units.
        positions, targets
            mm, increasing; every target strictly inside a gap.
        spacing
            In-plane ``(row, column)`` spacing in mm.
        answer
            What is drawn.
        at_once
            Most images that go through a network together. A target is registered in all of its
            frames at once, however many they are.
        together
            Whether the frames are one heartbeat.
        region
            As `reconstruct`.

        Yields
        ------
        tuple
            Which targets, a slice of them, and ``(samples, frames, targets, height, width)``,
            window units in ``[0, 1.5]``; one sample where none is asked for. The same seed gives
            the same slices whatever other targets are asked for.

        Raises
        ------
        ResourceError
            If memory runs out even for one image at a time.
        """
        answer = self.resolved(answer)
        grid = PixelGrid.of(images.shape, spacing)
        frames = Frames(len(images)) if together else STILL
        film = self.acquired(images, positions, grid, frames, region, at_once)
        gaps = np.searchsorted(positions, targets)
        # Midpoints need all targets of their gap.
        most = (
            max(1, at_once // len(images)) if self.interpolator.config.registered else len(targets)
        )
        for upper in np.unique(gaps):
            begin, end = np.searchsorted(gaps, (upper, upper + 1)).tolist()
            for first in range(begin, end, most):
                some = slice(first, min(first + most, end))
                drawn = self._gap(film, targets[some], int(upper), answer, at_once)
                native = grid.leave(drawn.flatten(0, 2)).clamp(0, CEILING)
                yield some, native.unflatten(0, drawn.shape[:3]).numpy()

    def recode(
        self, images: NDArray[np.float32], spacing: tuple[float, float]
    ) -> NDArray[np.float32]:
        """Images ``(slices, height, width)`` through the autoencoder and back.

        The ceiling of everything that is generated in its latent space.
        """
        grid = PixelGrid.of(images.shape, spacing)
        with torch.no_grad():
            entered = _entered(grid, images[None])[0].to(self.device)
            shown = self.decode(self.encode(entered)).cpu()
        return grid.leave(shown).clamp(0, CEILING).numpy()

    def acquired(
        self,
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        grid: PixelGrid,
        frames: Frames = STILL,
        region: Region | None = None,
        at_once: int = AT_ONCE,
    ) -> Film:
        """Acquired slices ``(frames, slices, height, width)`` on the grid, and encoded."""
        shown = _entered(grid, images).to(self.device)
        film = Film(shown, shown, positions, frames, region)
        latents = self.encode(film.cut(shown).flatten(0, 1), at_once)
        return replace(film, latents=latents.unflatten(0, images.shape[:2]))

    def encode(self, images: Tensor, at_once: int = AT_ONCE) -> Tensor:
        """Latents ``(slices, channels, h, w)`` of images ``(slices, height, width)``, float32."""

        def part(some: slice) -> Tensor:
            batch = images[some, None].contiguous(memory_format=torch.channels_last)
            with self.runtime.autocast():
                latents: Tensor = self.autoencoder.encode(batch).float()
            return latents

        return torch.cat(in_parts(part, len(images), at_once))

    def decode(self, latents: Tensor, at_once: int = AT_ONCE) -> Tensor:
        """Images ``(slices, height, width)`` of latents ``(slices, channels, h, w)``, float32."""

        def part(some: slice) -> Tensor:
            batch = latents[some].contiguous(memory_format=torch.channels_last)
            with self.runtime.autocast():
                images: Tensor = self.autoencoder.decode(batch)[:, 0].float()
            return images

        return torch.cat(in_parts(part, len(latents), at_once))

    def _gap(
        self, film: Film, targets: NDArray[np.float64], upper: int, answer: Answer, at_once: int
    ) -> Tensor:
        """Images ``(samples, frames, targets, ...)`` on the grid, in the gap below slice ``upper``.

        They are on the CPU.
        """
        # One stream a gap and sample: all of its targets, and all frames, share their noise.
        noise = [
            torch.randn(
                (1, *film.latents.shape[2:]), generator=seeded(answer.seed, upper, number)
            ).to(self.device)
            for number in range(max(answer.samples, 1))
        ]
        size = len(film.images), len(targets)
        if not self.interpolator.config.registered:
            drawn = [self._midpoints(film, targets, upper, n, answer, at_once) for n in noise]
            return torch.stack(drawn).cpu().unflatten(1, size)  # type: ignore[no-any-return]
        gap = self._neighbours(film, targets, upper, at_once)
        drawn = []
        for n in noise:
            parts = in_parts(
                lambda some, n=n: self._answer(gap.neighbours.part(some), n, answer),  # type: ignore[misc]
                len(gap.blend),
                at_once,
            )
            # g^2 x + (1 - g^2) b: near an acquired slice registered pixels know more than networks.
            weight = gap.neighbours.gate[:, 0].square()
            inside = weight * torch.cat(parts) + (1 - weight) * film.cut(gap.blend)
            drawn.append(inside if film.region is None else film.region.place(inside, gap.blend))
        return torch.stack(drawn).cpu().unflatten(1, size)  # type: ignore[no-any-return]

    def _answer(self, seen: Neighbours, noise: Tensor, answer: Answer) -> Tensor:
        """Images ``(targets, height, width)`` of the networks alone."""
        assert answer.steps is not None
        dial = answer.dial
        draw = noise.expand(len(seen.distance), -1, -1, -1)
        with self.runtime.autocast():
            if answer.samples:
                return self.decode(self.interpolator.sample(seen, draw, answer.steps))
            mean = self.interpolator.mean(seen)
            if dial == 0:
                return self.decode(mean)
            crisp = self.interpolator.crisp(seen, mean, draw, answer.steps)
        if dial in (None, 1):
            return self.decode(crisp)
        # x = D(mu) + dial (D(z) - D(mu)), in pixels.
        return torch.lerp(self.decode(mean), self.decode(crisp), dial)

    def around(self, film: Film, targets: NDArray[np.float64], upper: int) -> Neighbours:
        """The acquired slices around targets between the slices ``upper - 1`` and ``upper``.

        Frame by frame; ``moved`` is as they are, not registered.
        """
        frames, slices = film.latents.shape[:2]
        order = np.array([upper - 1, upper, upper - 2, upper + 1])
        there = (order >= 0) & (order < slices)
        index = order.clip(0, slices - 1)
        apart = np.where(there, film.positions[index] - targets[:, None], 0.0)
        distance = torch.from_numpy(apart).float().to(film.latents.device).repeat(frames, 1)
        seen = film.latents[:, index].repeat_interleave(len(targets), 0)
        beyond = seen[:, 2:] * torch.from_numpy(there[2:]).to(seen)[:, None, None, None]
        return Neighbours(seen[:, :2], distance, seen[:, :2], beyond)

    def _neighbours(
        self, film: Film, targets: NDArray[np.float64], upper: int, at_once: int
    ) -> Gap:
        """The same, registered to the targets."""
        known = self.around(film, targets, upper)
        pair = film.images[:, upper - 1 : upper + 1].repeat_interleave(len(targets), 0)
        moved = registered(pair, known.distance[:, :2], known.gate, film.frames)
        carried = self.encode(film.cut(moved).flatten(0, 1), at_once).unflatten(0, (-1, 2))
        return Gap(replace(known, moved=carried), known.weighted(moved))

    def _midpoints(
        self,
        film: Film,
        targets: NDArray[np.float64],
        upper: int,
        noise: Tensor,
        answer: Answer,
        at_once: int,
    ) -> Tensor:
        """The paper's way: midpoints until there are as many as targets; the nearest of them."""
        assert answer.steps is not None
        depth, steps = depth_for(len(targets)), answer.steps
        low, high = film.positions[upper - 1], film.positions[upper]
        place = np.rint((targets - low) / (high - low) * 2**depth).astype(int)
        chosen = torch.from_numpy(place.clip(1, 2**depth - 1))

        def between(below: Tensor, above: Tensor, half: float) -> Tensor:
            pair = torch.stack([below, above], 1)
            distance = pair.new_tensor([[-half, half, 0, 0]]).expand(len(pair), -1)
            seen = Neighbours(pair, distance, pair, pair)

            def part(some: slice) -> Tensor:
                start = noise.expand_as(below[some])
                with self.runtime.autocast():
                    return self.interpolator.sample(seen.part(some), start, steps)

            return torch.cat(in_parts(part, len(seen.distance), at_once))

        shown = []
        for frame in film.latents:
            dense = midpoints(frame[upper - 1 : upper + 1], high - low, depth, between)
            shown.append(self.decode(dense[chosen.to(dense.device)], at_once))
        return torch.cat(shown)


def _entered(grid: PixelGrid, images: NDArray[np.float32]) -> Tensor:
    """Images ``(frames, slices, height, width)`` on the padded grid."""
    flat = torch.from_numpy(images).flatten(0, 1)
    entered: Tensor = grid.enter(flat).clamp(0, CEILING).unflatten(0, images.shape[:2])
    return entered
