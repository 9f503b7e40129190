"""The methods of the benchmark by name, and what is recorded of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import calid
from calid.baselines.latent_rules import LatentLinear, LatentRule, LatentSpherical
from calid.baselines.learned import LEARNED, load_baseline
from calid.baselines.registration import blend, registration
from calid.baselines.rules import Method, cubic, linear, nearest
from calid.data.intensity import CEILING
from calid.errors import UsageError, WeightsError
from calid.evaluation.protocol import Contender, Sampler
from calid.geometry.pixels import PixelGrid
from calid.inference.machine import available_cpus, cpu_model
from calid.inference.model import Model, Preset, load_model
from calid.inference.options import Answer
from calid.io.sidecar import sha256
from calid.models.layers import channels_last
from calid.models.store import check_latents
from calid.runtime import choose_device, choose_precision, precision_name
from calid.weights import FOLDER, preset_weights

__all__ = [
    "AVERAGE",
    "CLASSICAL",
    "FRAMEWISE",
    "NAMES",
    "Roster",
    "averaged",
    "latent_method",
    "record",
    "weights_sha256",
]

CLASSICAL: Mapping[str, Method] = MappingProxyType(
    {
        "nearest": nearest,
        "linear": linear,
        "cubic": cubic,
        "registration": registration,
        "blend": blend,
    }
)

RULES: Mapping[str, LatentRule] = MappingProxyType(
    {"latent-linear": LatentLinear(), "latent-spherical": LatentSpherical()}
)

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
"""What each method asks of its preset. After the paper preset comes the default one: frame by
frame (films only), as `calid reconstruct` gives it, at both ends of its dial, as one posterior
sample, and as the average of eight."""

NAMES = (*CLASSICAL, *RULES, *LEARNED, *ANSWERS)
"""In the order of the tables."""


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
        self._files = cache(lambda preset: preset_weights(preset, weights))
        self.load: Callable[[Preset], Model] = cache(
            lambda preset: load_model(preset, device, weights=weights)
        )

    def available(self) -> list[str]:
        """Names of all methods whose weights are there; `FRAMEWISE` is for films only."""
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
        if name in CLASSICAL:
            return Contender(name, CLASSICAL[name], f"{name} {_code()}")
        if name not in ANSWERS:
            return self._latent(name)
        model, answer, identity, settings = self._preset(name)

        draw = partial(model.film, answer=answer)

        def film(*asked: Any) -> NDArray[np.float32]:
            return np.concatenate([samples.mean(axis=0) for _, samples in draw(*asked)], axis=1)

        alone = name in (FRAMEWISE, "paper", "paper-average")
        return Contender(name, averaged(model, answer), identity, settings, None if alone else film)

    def _preset(self, name: str) -> tuple[Model, Answer, str, dict[str, object]]:
        """Model, its `Answer`, the identity of its results, and the settings for the record."""
        preset: Preset = "paper" if name.startswith("paper") else "default"
        model = self.load(preset)
        answer = model.resolved(replace(ANSWERS[name], seed=self.seed))
        identity = self._identity(name, answer, model, list(self._files(preset).values()))
        return model, answer, identity, asdict(answer)

    def _latent(self, name: str) -> Contender:
        """A baseline in the latent space of the default preset's autoencoder."""
        model, files = self.load("default"), [self._files("default")["autoencoder"]]
        if name in RULES:
            rule = RULES[name]
        else:
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
    return lambda images, positions, targets, spacing: np.asarray(
        model.between(images, positions, targets, spacing, answer).mean(axis=0)
    )


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
            seen = model.neighbours_at(film, targets[gaps == upper], int(upper))
            with model.runtime.autocast():
                latents = rule(seen, rule.default_steps)
            out.append(grid.leave(model.decode(latents).cpu()).clamp(0, CEILING))
        return torch.cat(out).numpy()

    return method


@cache
def _code() -> str:
    """Hash of the code that answers depend on, so that answers of older code are not reused."""
    folder = Path(calid.__file__).parent
    rooms = ("baselines", "data", "geometry", "inference", "models", "segmentation")
    files = [folder / "diffusion.py", *(p for room in rooms for p in (folder / room).glob("*.py"))]
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(files))).hexdigest()[:16]


def record(
    contenders: Sequence[Contender], *own: Path | None, device: str = "auto"
) -> dict[str, Any]:
    """Weight hashes, sampling settings and the kind of machine, which is not identified.

    ``own`` is as in `weights_sha256`.
    """
    place = choose_device(device)
    gpu = place.type == "cuda"
    return {
        "weights_sha256": weights_sha256(*own),
        "settings": {c.name: c.settings for c in contenders},
        "machine": {
            "processor": torch.cuda.get_device_name(place) if gpu else cpu_model(),
            "cores": available_cpus(),
            "precision": precision_name(choose_precision(place)),
            "torch": version("torch"),
        },
    }


def weights_sha256(*own: Path | None) -> dict[str, str]:
    """Hashes of all weights that could take part, by name.

    ``own`` are folders with weights that stand in for those of the package, or beside them.
    """
    folders = [FOLDER, *(folder for folder in own if folder)]
    files = {p.stem: p for folder in folders for p in folder.glob("*.safetensors")}
    return {name: sha256(path) for name, path in sorted(files.items())}
