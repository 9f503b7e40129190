"""From the acquired slices of a stack to the slices between them, by the networks of a preset.

Images go to the interpolator's grid and are encoded once. Every gap is answered by itself, for all
frames: they share the noise of a sample, so that its targets are one piece of anatomy and its
frames one film. What is generated is decoded and, close to an acquired slice, gives way to
registered pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calid.data.augment import seeded
from calid.data.intensity import CEILING
from calid.errors import UsageError
from calid.geometry.pixels import PixelGrid, Region, gaussian_mean
from calid.inference.memory import AT_ONCE, IMAGES_AT_ONCE, Parts
from calid.inference.options import Answer, Generation
from calid.models.autoencoder import Autoencoder
from calid.models.interpolator import (
    InterpolatorConfig,
    LatentInterpolator,
    Neighbours,
    depth_for,
    midpoints,
)
from calid.models.layers import channels_last
from calid.models.motion import ONE_FRAME, Frames, register
from calid.models.store import check_latents, load_autoencoder, load_interpolator
from calid.runtime import PrecisionName, Runtime, choose_runtime
from calid.segmentation.segment import Segmenter
from calid.weights import preset_weights

__all__ = ["FEWEST_FRAMES", "Film", "Model", "Preset", "load_model", "model_for"]

Preset = Literal["default", "paper"]

FEWEST_FRAMES = 4
"""In shorter films (diastole and systole, say) every frame is processed by itself."""


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
        How they follow each other; frames of one heartbeat are registered together.
    region
        Where networks generate; None for everywhere.
    """

    images: Tensor
    latents: Tensor
    positions: NDArray[np.float64]
    frames: Frames = ONE_FRAME
    region: Region | None = None

    def cut(self, images: Tensor) -> Tensor:
        """What networks see of images ``(..., height, width)``."""
        return images if self.region is None else self.region.cut(images)


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
        preset: Preset,
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

    @cached_property
    def segmenter(self) -> Segmenter:
        """Finds the heart; loaded when it is first needed."""
        return Segmenter.released(self.runtime)

    def resolved(self, answer: Answer) -> Answer:
        """The request with what it leaves open filled in from the weights.

        Raises
        ------
        UsageError
            If the preset cannot give it.
        """
        config = self.interpolator.config
        if not config.registered and not answer.samples:
            raise UsageError(
                "`samples`", f"The preset {self.preset} only draws samples.", "Ask for 1 or more."
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
        parts = self.film(
            images[None], positions, targets, spacing, answer, at_once, ONE_FRAME, region
        )
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
        frames: Frames | None = None,
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
        frames
            How they follow each other, or `ONE_FRAME` for each by itself. None for one heartbeat;
            the images decide whether it is whole.
        region
            Where the networks generate; outside of it slices are registered and blended. None for
            everywhere.

        Yields
        ------
        tuple
            The index range of the targets, and ``(samples, frames, targets, height, width)``,
            window units in ``[0, 1.5]``; one sample where none is asked for. The same seed gives
            the same slices whatever other targets are asked for.

        Raises
        ------
        ResourceError
            If memory runs out even for one image at a time.
        """
        answer = self.resolved(answer)
        assert answer.steps is not None
        net, count = self.interpolator, max(answer.samples, 1)
        grid = PixelGrid.of(images.shape, spacing)
        film = self.acquired(images, positions, grid, frames or Frames.of(images), region)
        most = max(1, at_once // len(images))
        for upper, within in _gaps(positions, targets):
            # One stream a gap and sample: all of its targets, and all frames, share their noise.
            noise = [self._noise(film, answer.seed, upper, number) for number in range(count)]
            if not net.config.registered:
                drawn = [
                    self._midpoints(film, targets[within], upper, n, answer.steps) for n in noise
                ]
                yield within, _on_own_pixels(grid, torch.stack(drawn), len(images))
                continue
            for part in Parts(within.stop - within.start, most):
                with part as few:
                    some = slice(within.start + few.start, within.start + few.stop)
                    shown = self._generated(film, targets[some], upper, noise, answer, at_once)
                    yield some, _on_own_pixels(grid, shown, len(images))

    def _generated(
        self,
        film: Film,
        targets: NDArray[np.float64],
        upper: int,
        noise: list[Tensor],
        answer: Answer,
        at_once: int,
    ) -> Tensor:
        """Images ``(samples, frames * targets, height, width)`` in the gap below ``upper``.

        One sample for each of ``noise``, on the padded grid.
        """
        net = self.interpolator
        assert answer.steps is not None
        neighbours, blend = self._neighbours(film, targets, upper)
        centre, gate = film.cut(blend).clone(), neighbours.gate[:, 0]
        deviation = centre.new_zeros(len(noise), *centre.shape)
        # tau_1 mixes the frames of a target: it sees all of them at once.
        with self.runtime.autocast():
            known = net.encode(neighbours, film.frames)
        for part in Parts(len(blend), at_once):
            with part as few:
                encoded = known.part(few)
                assert encoded.mean is not None
                mean = self.decode(encoded.mean)
                # b + g^2 (D(mu) - b): near an acquired slice registered pixels are more accurate
                # than generated ones.
                centre[few] = torch.lerp(centre[few], mean, gate[few].square())
                if answer.dial == 0:
                    continue
                for number, one in enumerate(noise):
                    with self.runtime.autocast():
                        if answer.dial is None:
                            draw = one.expand(len(mean), -1, -1, -1)
                            latents = net.sample(encoded, draw, answer.steps)
                        else:
                            latents = net.transported(encoded, answer.steps)
                    # D(z) - D(mu), in pixels.
                    deviation[number, few] = self.decode(latents) - mean
        if answer.dial:
            deviation = dialled(deviation[0], answer.dial, net.config, gate, film.frames)[None]
        # A sample's deviation is added in full: the truth varies around registered pixels as it
        # does around the mean.
        shown = deviation.add_(centre)
        if film.region is None:
            return shown
        return torch.stack([film.region.place(inside, blend) for inside in shown])

    def recode(
        self, images: NDArray[np.float32], spacing: tuple[float, float]
    ) -> NDArray[np.float32]:
        """Images ``(slices, height, width)`` through the autoencoder and back.

        The error of these is what the autoencoder alone causes.
        """
        grid = PixelGrid.of(images.shape, spacing)
        with torch.no_grad():
            entered = _on_grid(grid, images[None])[0].to(self.device)
            shown = self.decode(self.encode(entered)).cpu()
        return grid.leave(shown).clamp(0, CEILING).numpy()

    def acquired(
        self,
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        grid: PixelGrid,
        frames: Frames = ONE_FRAME,
        region: Region | None = None,
    ) -> Film:
        """Acquired slices ``(frames, slices, height, width)`` on the grid, and encoded."""
        shown = _on_grid(grid, images).to(self.device)
        film = Film(shown, shown, positions, frames, region)
        latents = self.encode(film.cut(shown).flatten(0, 1))
        return replace(film, latents=latents.unflatten(0, images.shape[:2]))

    def encode(self, images: Tensor) -> Tensor:
        """Latents ``(slices, channels, h, w)`` of images ``(slices, height, width)``, float32."""
        latents = []
        for part in Parts(len(images), IMAGES_AT_ONCE):
            with part as some, self.runtime.autocast():
                batch = images[some, None].contiguous(memory_format=torch.channels_last)
                latents.append(self.autoencoder.encode(batch).float())
        return torch.cat(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Images ``(slices, height, width)`` of latents ``(slices, channels, h, w)``, float32."""
        images = []
        for part in Parts(len(latents), IMAGES_AT_ONCE):
            with part as some, self.runtime.autocast():
                batch = latents[some].contiguous(memory_format=torch.channels_last)
                images.append(self.autoencoder.decode(batch)[:, 0].float())
        return torch.cat(images)

    def neighbours_at(self, film: Film, targets: NDArray[np.float64], upper: int) -> Neighbours:
        """The acquired slices around targets between the slices ``upper - 1`` and ``upper``.

        Frame-major; ``moved`` is a placeholder, the adjacent latents, until they are registered.
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

    def _noise(self, film: Film, seed: int, upper: int, number: int) -> Tensor:
        """Standard normal, ``(1, channels, h, w)``, of one sample in the gap below ``upper``."""
        generator = seeded(seed, upper, number)
        return torch.randn((1, *film.latents.shape[2:]), generator=generator).to(self.device)

    def _neighbours(
        self, film: Film, targets: NDArray[np.float64], upper: int
    ) -> tuple[Neighbours, Tensor]:
        """The acquired slices registered to targets, and their weighted sum in pixels.

        Frame-major; the sum is ``(frames * targets, height, width)``.
        """
        known = self.neighbours_at(film, targets, upper)
        pair = film.images[:, upper - 1 : upper + 1].repeat_interleave(len(targets), 0)
        moved = register(pair, known.distance[:, :2], known.gate, film.frames)
        carried = self.encode(film.cut(moved).flatten(0, 1)).unflatten(0, (-1, 2))
        return replace(known, moved=carried), known.weighted(moved)

    def _midpoints(
        self, film: Film, targets: NDArray[np.float64], upper: int, noise: Tensor, steps: int
    ) -> Tensor:
        """As in the paper: halve the gap until there are enough slices, take the nearest ones."""
        depth = depth_for(len(targets))
        low, high = film.positions[upper - 1], film.positions[upper]
        place = np.rint((targets - low) / (high - low) * 2**depth).astype(int)
        chosen = torch.from_numpy(place.clip(1, 2**depth - 1))

        def between(below: Tensor, above: Tensor, half: float) -> Tensor:
            pair = torch.stack([below, above], 1)
            # tau_1 of the paper reads adjacent slices and distances alone.
            distance = pair.new_tensor([[-half, half, 0, 0]]).expand(len(pair), -1)
            seen, latents = Neighbours(pair, distance, pair, pair), []
            for part in Parts(len(pair), AT_ONCE):
                with part as some, self.runtime.autocast():
                    known = self.interpolator.encode(seen.part(some))
                    start = noise.expand_as(below[some])
                    latents.append(self.interpolator.sample(known, start, steps))
            return torch.cat(latents)

        shown = []
        for frame in film.latents:
            dense = midpoints(frame[upper - 1 : upper + 1], high - low, depth, between)
            shown.append(self.decode(dense[chosen.to(dense.device)]))
        return torch.cat(shown)


def dialled(
    deviation: Tensor,
    dial: float,
    config: InterpolatorConfig,
    gate: Tensor,
    frames: Frames = ONE_FRAME,
) -> Tensor:
    """As much of ``d = D(z) - D(mu)`` as the dial says.

    ``G`` is a Gaussian mean over `InterpolatorConfig.detail` pixels: ``d - G d`` is detail, which
    makes an answer crisp at the cost of little error, ``G d`` is structure, which costs more. With
    the gains ``alpha`` and ``beta`` of `InterpolatorConfig` the dial has three places,

    - 0, the mean, with registered pixels near acquired slices: nothing is added;
    - `InterpolatorConfig.dial`, the default: ``g^2 (alpha (d - G d) + beta G d)``, which gives way
      to registered pixels as the mean does;
    - 1, the crisp answer: ``g N_s (alpha (d - G d) + beta G d)``, which is crisp in narrow gaps,
      too. ``N_s`` averages the frames of a film over the narrowest of `InterpolatorConfig.mixing`
      (`Frames.mean`): nothing says how generated detail moves, so it moves slowly.

    Between these places the answer follows straight lines.

    Parameters
    ----------
    deviation
        Of the end of the transport from the mean, ``(frames * targets, height, width)``.
    dial
        In ``(0, 1]``.
    gate
        ``g`` of every target, ``(frames * targets, 1, 1)``.
    frames
        Of the film; targets are frame-major, all of frame 0 first.
    """
    structure = gaussian_mean(deviation, config.detail)
    detail = deviation - structure
    alpha, beta = config.default_gains
    default = gate.square() * (alpha * detail + beta * structure)
    if dial <= config.dial:
        return dial / config.dial * default
    alpha, beta = config.crisp_gains
    crisp = gate * (alpha * detail + beta * structure)
    if config.mixing:
        crisp = frames.mean(crisp, min(config.mixing))
    return torch.lerp(default, crisp, (dial - config.dial) / (1 - config.dial))


def _gaps(
    positions: NDArray[np.float64], targets: NDArray[np.float64]
) -> Iterator[tuple[int, slice]]:
    """The slice above every gap, and the targets in it; all of them, in order."""
    gaps = np.searchsorted(positions, targets)
    for upper in np.unique(gaps).tolist():
        begin, end = np.searchsorted(gaps, (upper, upper + 1)).tolist()
        yield upper, slice(begin, end)


def _on_own_pixels(grid: PixelGrid, shown: Tensor, frames: int) -> NDArray[np.float32]:
    """Images ``(samples, frames * targets, ...)`` in the pixels that they came in.

    Their shape is ``(samples, frames, targets, height, width)``.
    """
    native = grid.leave(shown.cpu().flatten(0, 1)).clamp(0, CEILING)
    images: NDArray[np.float32] = native.unflatten(0, (len(shown), frames, -1)).numpy()
    return images


def _on_grid(grid: PixelGrid, images: NDArray[np.float32]) -> Tensor:
    """Images ``(frames, slices, height, width)`` on the padded grid."""
    flat = torch.from_numpy(images).flatten(0, 1)
    entered: Tensor = grid.enter(flat).clamp(0, CEILING).unflatten(0, images.shape[:2])
    return entered


def model_for(wanted: Generation) -> Model:
    """The networks that are to generate, where and as they are to run; see `load_model`."""
    return load_model(wanted.preset, wanted.device, wanted.precision, wanted.weights)


def load_model(
    preset: Preset = "default",
    device: str = "auto",
    precision: PrecisionName = "auto",
    weights: Path | None = None,
) -> Model:
    """The released networks, or one's own.

    Parameters
    ----------
    preset
        ``default`` measures better; ``paper`` follows the paper.
    device
        ``auto``, ``cpu`` or ``cuda``.
    precision
        ``auto``, ``float32`` or ``bfloat16``.
    weights
        Folder with weights of one's own; see `calid.weights.preset_weights`.

    Raises
    ------
    UsageError
        If preset, device or precision do not exist or are not there.
    WeightsError
        If weights are missing or damaged.
    """
    where = choose_runtime(device, precision)
    place = where.device
    files = preset_weights(preset, weights)
    interpolator = load_interpolator(files[preset], preset)
    autoencoder = load_autoencoder(files["autoencoder"]).to(place)
    check_latents(autoencoder, interpolator.config.channels, files[preset])
    networks = channels_last(autoencoder), channels_last(interpolator.to(place))
    return Model(*networks, preset, runtime=where, weights=files)
