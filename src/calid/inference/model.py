"""A trained pair of networks, and the one thing it does: slices in, slices between them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calid.data.intensity import CEILING
from calid.data.sampling import seeded
from calid.errors import UsageError
from calid.geometry.grid import NetworkGrid
from calid.geometry.orientation import turn, turn_back
from calid.inference.reconstruct import choose_factor, choose_samples, densify
from calid.inference.runtime import choose_device, choose_precision
from calid.models.autoencoder import Autoencoder
from calid.models.context import Acquired
from calid.models.interpolator import Filled, LatentFiller
from calid.models.layers import channels_last
from calid.models.store import load_autoencoder, load_interpolator
from calid.models.surroundings import expected, texture
from calid.stack import SliceStack, Volume
from calid.weights import weights_path

__all__ = ["Model", "Preset", "Sampling", "load_model"]

Preset = Literal["default", "paper"]

FEW = 4
"""Images in one pass: full fields of view at half resolution are the peak of memory."""
HOTTEST = 10.0
"""Largest temperature: far beyond any use, and far from where numbers overflow."""


@dataclass(frozen=True)
class Sampling:
    """How the slices between two slices are drawn.

    Parameters
    ----------
    samples
        Independent samples, averaged in the image, each from the stack in another of eight
        orientations; 0 draws the conditional mean with the texture of the slices around it,
        in one pass without any sampling (``default`` preset only).
    steps
        Sampler steps; none for the preset's own.
    temperature
        Scale of what is not the conditional mean, the starting noise and the texture carried
        over from the slices around: 1 samples the learned distribution and looks as crisp as
        they do; 0 is nearest to the truth in the mean square, and blurred.
    seed
        Of the noise.
    """

    samples: int = 1
    steps: int | None = None
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--samples", self.samples, 0),
            ("--steps", 1 if self.steps is None else self.steps, 1),
            ("--temperature", self.temperature, 0),
            ("--seed", self.seed, 0),
        ):
            if not value >= least:
                raise UsageError(name, f"{value} is too small.", f"Use {least} or more.")
        if self.temperature > HOTTEST:
            raise UsageError(
                "--temperature", f"{self.temperature} is too large.", f"Use {HOTTEST:g} or less."
            )


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
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        interpolator: LatentFiller,
        preset: str,
        device: torch.device,
    ) -> None:
        self.autoencoder, self.interpolator = autoencoder, interpolator
        self.preset, self.device = preset, device
        self.precision = choose_precision(device)

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
        on_frame: Callable[[int], None] = lambda frame: None,
    ) -> Volume:
        """Reconstruct a dense volume from a sparse stack.

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
        on_frame
            Called with the number of frames done.

        Raises
        ------
        UsageError
            If an option is out of range.
        """
        drawn = choose_samples(samples, self.preset, uncertainty)
        sampling = Sampling(drawn, steps, temperature, seed)

        def method(
            images: NDArray[np.float32],
            positions: NDArray[np.float64],
            targets: NDArray[np.float64],
            spacing: tuple[float, float],
        ) -> NDArray[np.float32]:
            return self.between(images, positions, targets, spacing, sampling)

        chosen = choose_factor(stack, factor, spacing)
        return densify(stack, method, chosen, uncertainty, on_frame)

    @torch.no_grad()
    def between(
        self,
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
        sampling: Sampling,
    ) -> NDArray[np.float32]:
        """Generate slices between slices.

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

        Returns
        -------
        NDArray
            ``(samples, targets, height, width)``, window units in ``[0, 1.5]``. The same
            seed gives the same slices whatever else is generated in the same call.
        """
        grid = NetworkGrid.of(images.shape[-2:], spacing)
        acquired = grid.enter(torch.from_numpy(images)).clamp(0, CEILING)
        out = []
        for number in range(max(sampling.samples, 1)):
            # Every sample sees the stack turned another way: what the networks owe to the
            # orientation of the image averages out with the noise.
            seen = turn(acquired, number)
            drawn = self._sample(seen, positions, targets, sampling, number)
            out.append(grid.leave(turn_back(drawn, number)))
        return torch.stack(out).clamp(0, CEILING).numpy()

    def _sample(
        self,
        acquired: Tensor,
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        sampling: Sampling,
        number: int,
    ) -> Tensor:
        """One sample ``(targets, height, width)`` on the networks' grid."""
        images = self._batch(acquired)
        known = Acquired.of(images, self._encode)
        steps = sampling.steps or self.interpolator.default_steps
        out = []
        gaps = np.searchsorted(positions, targets)
        for gap in np.unique(gaps):
            # One stream per gap: all of its targets, and all frames, share their noise.
            generator = seeded(sampling.seed, int(gap), number)
            draw = partial(torch.randn, generator=generator) if sampling.samples else None
            with self._autocast():
                filled = self.interpolator.fill(
                    known,
                    positions,
                    targets[gaps == gap],
                    draw,
                    steps,
                    sampling.temperature,
                )
            # Texture stands for one of many that could be: an average has as little of it as
            # an average of independent draws would.
            vividness = sampling.temperature / max(sampling.samples, 1)
            out.append(self._render(filled, vividness))
        return torch.cat(out)

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
        with self._autocast():
            parts = [self.autoencoder.encode(part) for part in images.split(8)]
        return torch.cat(parts)

    def _decode(self, latents: Tensor) -> Tensor:
        with self._autocast():
            parts = [self.autoencoder.decode(z).float() for z in latents.split(FEW)]
        return torch.cat(parts)

    def _render(self, filled: Filled, vividness: float) -> Tensor:
        """Images ``(targets, height, width)`` on the networks' grid.

        What is known is drawn with the acquired pixels in view; what the sampler chose beyond
        it is added as the difference that it makes.

        Parameters
        ----------
        vividness
            How much of the texture is added; 0 leaves the conditional mean.
        """
        drawn = self._decode(filled.latents)
        if filled.known is None:
            return drawn[:, 0].cpu()
        mean, around = filled.known.mean, filled.known.around
        decoded = drawn if mean is filled.latents else self._decode(mean)
        image = expected(decoded, around)
        image = image + vividness * texture(image, around) + around.gate * (drawn - decoded)
        return image[:, 0].cpu()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, self.precision != torch.float32)

    def _batch(self, images: Tensor) -> Tensor:
        return images[:, None].to(self.device, memory_format=torch.channels_last)


def load_model(preset: Preset = "default", device: str = "auto") -> Model:
    """The released networks.

    Parameters
    ----------
    preset
        ``default`` measures better; ``paper`` follows the paper.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    UsageError
        If preset or device do not exist.
    WeightsError
        If the package's weights are missing or damaged.
    """
    place = choose_device(device)
    interpolator = load_interpolator(weights_path(preset), preset)
    autoencoder = load_autoencoder(weights_path("autoencoder")).to(place)
    return Model(channels_last(autoencoder), channels_last(interpolator.to(place)), preset, place)
