"""The methods of the benchmark by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

import calid
from calid.baselines.cubic import cubic
from calid.baselines.diffusion_autoencoder import DiffusionAutoencoder
from calid.baselines.latent_linear import LatentLinear
from calid.baselines.latent_spherical import LatentSpherical
from calid.baselines.learned import LEARNED, load_baseline
from calid.baselines.linear import linear
from calid.baselines.nearest import nearest
from calid.baselines.registration import registration
from calid.baselines.signature import Method
from calid.errors import UsageError, WeightsError
from calid.evaluation.contender import Contender, Sampler
from calid.inference.load import Preset, load_model
from calid.inference.model import Model, Sampling
from calid.io.sidecar import sha256
from calid.models.interpolator import LatentFiller
from calid.models.layers import channels_last
from calid.segmentation.segment import load_segmenter
from calid.weights import preset_weights, weights_path

__all__ = ["AVERAGE", "CLASSICAL", "FRAMEWISE", "NAMES", "Roster", "averaged"]

CLASSICAL = ("nearest", "linear", "cubic", "registration")

FRAMEWISE, AVERAGE = "calid-2d", "calid-average"

NAMES = (
    *CLASSICAL,
    "latent-linear",
    "latent-spherical",
    *LEARNED,
    "paper",
    FRAMEWISE,
    "calid",
    "calid-mean",
    "calid-sample",
    AVERAGE,
)
"""In the order of the tables: classical, fixed paths in latent space, learned baselines, the
paper preset, then the default preset frame by frame (of films only), as `calid reconstruct` gives
it, as the bare conditional mean, as one sample, and as the average of eight samples."""


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
        """Names of all methods whose weights are there.

        `FRAMEWISE` is one of them where the weights know films, and only on films is it another
        method than ``calid``.
        """
        known = [n for n in NAMES if n not in LEARNED or self._weights(n) is not None]
        return [n for n in known if n != FRAMEWISE or self._temporal()]

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
        model, sampling, weights = self._learned(AVERAGE)
        identity, settings = _facts(f"samples of {AVERAGE}", model, sampling, weights)
        return Sampler(AVERAGE, partial(model.between, sampling=sampling), identity, settings)

    def _contender(self, name: str) -> Contender:
        classical: dict[str, Method] = {
            "nearest": nearest,
            "linear": linear,
            "cubic": cubic,
            "registration": registration,
        }
        if name in classical:
            return Contender(name, classical[name], f"{name} {_code()}")
        model, sampling, weights = self._learned(name)
        identity, settings = _facts(name, model, sampling, weights)
        together = model.interpolator.sees_films and name != FRAMEWISE
        film = _films(model, sampling) if together else None
        return Contender(name, averaged(model, sampling), identity, settings, film)

    def _learned(self, name: str) -> tuple[Model, Sampling, list[Path]]:
        """Model, how it is sampled, and the files it depends on."""
        autoencoder = self.files("default")["autoencoder"]
        ours = {
            FRAMEWISE: Sampling(0, seed=self.seed),
            "calid": Sampling(0, seed=self.seed),
            "calid-mean": Sampling(0, temperature=0.0, seed=self.seed),
            "calid-sample": Sampling(1, seed=self.seed),
            AVERAGE: Sampling(8, seed=self.seed),
        }
        if name in ours:
            return self.load("default"), ours[name], list(self.files("default").values())
        if name == "paper":
            sampling = Sampling(1, seed=self.seed)
            return self.load("paper"), sampling, list(self.files("paper").values())
        shared = self.load("default")
        replaced = partial(
            Model, shared.autoencoder, preset=name, device=shared.device, runtime=shared.runtime
        )
        fixed: dict[str, LatentFiller] = {
            "latent-linear": LatentLinear(),
            "latent-spherical": LatentSpherical(),
        }
        if name in fixed:
            model = replaced(fixed[name])
            return model, Sampling(0, seed=self.seed), [autoencoder]
        path = self._weights(name)
        if path is None:
            raise WeightsError(
                f"{name}.safetensors",
                "The package does not carry the weights of this baseline.",
                f"Train it (calid train baseline --method {name}) and give --baselines FOLDER.",
            )
        network, files = load_baseline(path, name), [autoencoder, path]
        if isinstance(network, DiffusionAutoencoder) and network.config.morphology:
            network.label_with(load_segmenter(self.device).one_hot)
            files.append(weights_path("segmentation"))
        model = replaced(channels_last(network.to(shared.device)))
        return model, Sampling(0, seed=self.seed), files

    def _temporal(self) -> bool:
        """Whether the default preset's weights know films; only their header is read."""
        with safe_open(self.files("default")["default"], "np") as store:
            config = json.loads(store.metadata()["config"])
        return bool(config.get("temporal", 0))

    def _weights(self, name: str) -> Path | None:
        path = self.baselines / f"{name}.safetensors" if self.baselines else None
        return path if path is not None and path.exists() else None


def _facts(
    name: str, model: Model, sampling: Sampling, weights: Sequence[Path]
) -> tuple[str, dict[str, object]]:
    """Identity of a contender that samples, and its settings for the record."""
    identity = f"{name} {_code()} {sampling} {model.runtime.precision} {model.device.type}"
    identity += "".join(sha256(path) for path in weights)
    settings: dict[str, object] = {
        "samples": sampling.samples,
        "steps": sampling.steps or model.interpolator.default_steps,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
    }
    return identity, settings


def averaged(model: Model, sampling: Sampling) -> Method:
    """A model as a benchmark method: its samples averaged in the image."""

    def method(
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
    ) -> NDArray[np.float32]:
        samples = model.between(images, positions, targets, spacing, sampling)
        return np.asarray(samples.mean(axis=0))

    return method


def _films(model: Model, sampling: Sampling) -> Method:
    """The same for films: images and answers have one more axis of frames in front."""

    def method(
        images: NDArray[np.float32],
        positions: NDArray[np.float64],
        targets: NDArray[np.float64],
        spacing: tuple[float, float],
    ) -> NDArray[np.float32]:
        parts = model.film(images, positions, targets, spacing, sampling)
        return np.concatenate([samples.mean(axis=0) for _, samples in parts], axis=1)

    return method


@cache
def _code() -> str:
    """Hash of the code that answers depend on: kept answers are not older than it."""
    folder = Path(calid.__file__).parent
    rooms = ("baselines", "data", "diffusion", "geometry", "inference", "models", "segmentation")
    files = sorted(p for room in rooms for p in (folder / room).glob("*.py"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()[:16]
