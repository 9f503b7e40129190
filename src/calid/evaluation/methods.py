"""The methods of the benchmark by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import calid
from calid.baselines.blend import blend
from calid.baselines.cubic import cubic
from calid.baselines.latent_linear import LatentLinear
from calid.baselines.latent_spherical import LatentSpherical
from calid.baselines.learned import LEARNED, load_baseline
from calid.baselines.linear import linear
from calid.baselines.nearest import nearest
from calid.baselines.registration import registration
from calid.baselines.signature import LatentRule, Method
from calid.data.intensity import CEILING
from calid.errors import UsageError, WeightsError
from calid.evaluation.contender import Contender, Sampler
from calid.geometry.pixels import PixelGrid
from calid.inference.model import Model, Preset, load_model
from calid.inference.options import Answer
from calid.io.sidecar import sha256
from calid.models.layers import channels_last
from calid.models.store import check_latents
from calid.weights import preset_weights

__all__ = ["AVERAGE", "CLASSICAL", "FRAMEWISE", "NAMES", "Roster", "averaged", "latent_method"]

CLASSICAL = ("nearest", "linear", "cubic", "registration", "blend")

FRAMEWISE, AVERAGE = "calid-2d", "calid-average"

ANSWERS = {
    "paper": Answer(samples=1),
    "paper-average": Answer(samples=8),
    FRAMEWISE: Answer(),
    "calid": Answer(),
    "calid-mean": Answer(dial=0),
    "calid-crisp": Answer(dial=1),
    "calid-sample": Answer(samples=1),
    AVERAGE: Answer(samples=8),
}
"""What the presets are asked for."""

NAMES = (*CLASSICAL, "latent-linear", "latent-spherical", *LEARNED, *ANSWERS)
"""In the order of the tables: classical, fixed paths in latent space, learned baselines, the
paper preset, then the default preset frame by frame (of films only), as `calid reconstruct` gives
it, at both ends of its dial, as one posterior sample, and as the average of eight."""


class Roster:
    """Makes contenders; every network is loaded once, when it is first needed.

    Parameters
    ----------
    seed
        Of the samplers.
    device
        ``auto``, ``cpu`` or ``cuda``.
    baselines
        Folder with the weights of the learned baselines, which the package does not carry.
    weights
        Folder with one's own weights of the presets; see `calid.weights.preset_weights`.
    """

    def __init__(
        self,
        seed: int,
        device: str = "auto",
        baselines: Path | None = None,
        weights: Path | None = None,
    ) -> None:
        self.seed, self.device, self.baselines = seed, device, baselines
        # Hashed when they are looked up: once for all methods.
        self.files = cache(lambda preset: preset_weights(preset, weights))
        self.load: Callable[[Preset], Model] = cache(
            lambda preset: load_model(preset, device, weights=weights)
        )

    def available(self) -> list[str]:
        """Names of all methods whose weights are there; only of films is `FRAMEWISE` one."""
        return [n for n in NAMES if n not in LEARNED or self._weights(n) is not None]

    def contenders(self, names: Sequence[str]) -> list[Contender]:
        """Methods ready to be called, in the tables' order.

        Raises
        ------
        UsageError
            If a name is unknown.
        WeightsError
            If a learned baseline has no weights.
        """
        unknown = [n for n in names if n not in NAMES]
        if unknown:
            raise UsageError(
                "--methods", f"{unknown[0]!r} is not a method.", f"Choose from {', '.join(NAMES)}."
            )
        return [self._contender(n) for n in NAMES if n in names]

    def sampler(self) -> Sampler:
        """The samples behind ``calid-average``."""
        model, answer, identity, settings = self._preset(AVERAGE)
        samples = partial(model.between, answer=answer)
        return Sampler(AVERAGE, samples, f"samples of {identity}", settings)

    def _contender(self, name: str) -> Contender:
        classical: dict[str, Method] = {
            "nearest": nearest,
            "linear": linear,
            "cubic": cubic,
            "registration": registration,
            "blend": blend,
        }
        if name in classical:
            return Contender(name, classical[name], f"{name} {_code()}")
        if name not in ANSWERS:
            return self._latent(name)
        model, answer, identity, settings = self._preset(name)
        film = None if name in (FRAMEWISE, "paper", "paper-average") else _films(model, answer)
        return Contender(name, averaged(model, answer), identity, settings, film)

    def _preset(self, name: str) -> tuple[Model, Answer, str, dict[str, object]]:
        """Model, what it is asked for, what its answers depend on, and the record of these."""
        preset: Preset = "paper" if name.startswith("paper") else "default"
        model = self.load(preset)
        answer = model.resolved(replace(ANSWERS[name], seed=self.seed))
        identity = self._identity(name, answer, model, list(self.files(preset).values()))
        return model, answer, identity, asdict(answer)

    def _latent(self, name: str) -> Contender:
        """A baseline in the latent space of the default preset's autoencoder."""
        model, files = self.load("default"), [self.files("default")["autoencoder"]]
        fixed: dict[str, LatentRule] = {
            "latent-linear": LatentLinear(),
            "latent-spherical": LatentSpherical(),
        }
        rule = fixed.get(name)
        if rule is None:
            path = self._weights(name)
            if path is None:
                raise WeightsError(
                    f"{name}.safetensors",
                    "The package does not carry the weights of this baseline.",
                    f"Train it (calid train {name}) and give --baselines FOLDER.",
                )
            network = load_baseline(path, name)
            check_latents(model.autoencoder, network.config.channels, path)
            rule = channels_last(network.to(model.device))
            files.append(path)
        identity = self._identity(name, rule.default_steps, model, files)
        settings = {"steps": rule.default_steps}
        return Contender(name, latent_method(model, rule), identity, settings)

    def _identity(self, name: str, how: object, model: Model, files: Sequence[Path]) -> str:
        place = f"{model.runtime.precision} {model.device.type}"
        return f"{name} {_code()} {how} {place}" + "".join(sha256(path) for path in files)

    def _weights(self, name: str) -> Path | None:
        path = self.baselines / f"{name}.safetensors" if self.baselines else None
        return path if path is not None and path.exists() else None


def averaged(model: Model, answer: Answer) -> Method:
    """A model as a benchmark method: its samples averaged in the image."""

    def method(
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
    ) -> NDArray[np.float32]:
        return np.asarray(model.between(images, positions, targets, spacing, answer).mean(axis=0))

    return method


def _films(model: Model, answer: Answer) -> Method:
    """The same for films: images and answers have one more axis of frames in front."""

    def method(
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
    ) -> NDArray[np.float32]:
        parts = model.film(images, positions, targets, spacing, answer)
        return np.concatenate([samples.mean(axis=0) for _, samples in parts], axis=1)

    return method


def latent_method(model: Model, rule: LatentRule) -> Method:
    """A rule in latent space as a benchmark method, with a model's autoencoder."""

    @torch.no_grad()
    def method(
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
    ) -> NDArray[np.float32]:
        grid = PixelGrid.of(images.shape, spacing)
        film = model.acquired(images[None], positions, grid)
        gaps, out = np.searchsorted(positions, targets), []
        for upper in np.unique(gaps):
            seen = model.around(film, targets[gaps == upper], int(upper))
            with model.runtime.autocast():
                latents = rule(seen, rule.default_steps)
            out.append(grid.leave(model.decode(latents).cpu()).clamp(0, CEILING))
        return torch.cat(out).numpy()

    return method


@cache
def _code() -> str:
    """Hash of the code that answers depend on: kept answers are not older than it."""
    folder = Path(calid.__file__).parent
    rooms = ("baselines", "data", "geometry", "inference", "models", "segmentation")
    files = [folder / "diffusion.py", *(p for room in rooms for p in (folder / room).glob("*.py"))]
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(files))).hexdigest()[:16]
