"""Networks in safetensors files: parameters, and the configuration that rebuilds them.

Parameters are stored as float16 and computed in float32. The header holds everything that
`calid info` prints, so that it can be read without importing torch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from calid.errors import WeightsError
from calid.io.atomic import atomic
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.interpolator import InterpolatorConfig, LatentInterpolator

__all__ = [
    "check_latents",
    "load_autoencoder",
    "load_interpolator",
    "load_network",
    "load_tensors",
    "save_autoencoder",
    "save_tensors",
]

Network = TypeVar("Network", bound=nn.Module)


def save_tensors(
    module: nn.Module, kind: str, config: object, figures: Mapping[str, float], path: Path
) -> None:
    """Write a module's state as float16 with its configuration in the header.

    Parameters
    ----------
    kind
        Which network it is; loading under another kind is refused.
    config
        A dataclass of plain values.
    figures
        Validation figures, for the record.
    """
    header = {
        "kind": kind,
        "config": json.dumps(dataclasses.asdict(config)),  # type: ignore[call-overload]
        "figures": json.dumps(dict(figures)),
    }
    state = {k: v.detach().cpu().half().contiguous() for k, v in module.state_dict().items()}
    with atomic(path) as file:
        file.write(save(state, header))


def load_tensors(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State (float32) and configuration of a file that `save_tensors` wrote.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or holds another kind of network.
    """
    try:
        with safe_open(path, "pt") as store:
            meta = store.metadata() or {}
            state = {key: store.get_tensor(key).float() for key in store.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            path, f"The weights cannot be read ({error}).", "Install calid again, or train them."
        ) from error
    if meta.get("kind") in ("default", "paper"):
        raise WeightsError(
            path,
            "These weights are of the interpolator of calid 0.1, which there is no longer.",
            f"Train them again: calid train {meta['kind']}.",
        )
    if meta.get("kind") != kind:
        raise WeightsError(
            path, f"This file holds {meta.get('kind')!r}, not {kind!r}.", "Give the right file."
        )
    try:
        sizes = dict(json.loads(meta["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            path, "The file does not say how its network is built.", "Install calid again."
        ) from error
    return state, {k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()}


def load_state(module: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load a state into a module of the same shape, or say which file does not fit."""
    _compare(module, state, path)
    module.load_state_dict(state)


def _compare(module: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in state.items()}:
        raise WeightsError(
            path, "The parameters do not fit their configuration.", "Install calid again."
        )


def _build(path: Path, make: Callable[[], Network]) -> Network:
    try:
        return make()
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            path,
            "The configuration is of another version of calid.",
            "Train them again, or use the version that they were trained with.",
        ) from error


def save_autoencoder(model: Autoencoder, path: Path, figures: Mapping[str, float]) -> None:
    """Write an autoencoder."""
    save_tensors(model, "autoencoder", model.config, figures, path)


def load_network(path: Path, kind: str, build: Callable[..., Network]) -> Network:
    """Read a network, in evaluation mode, on the CPU.

    Parameters
    ----------
    build
        Makes the untrained network of the sizes in the file, given as keywords.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another kind or version.
    """
    state, config = load_tensors(path, kind)
    with torch.device("meta"):  # sizes are compared before memory is taken for them
        outline = _build(path, lambda: build(**config))
    _compare(outline, state, path)
    model = _build(path, lambda: build(**config))
    load_state(model, state, path)
    return model.eval().requires_grad_(False)


def load_autoencoder(path: Path) -> Autoencoder:
    """Read an autoencoder, in evaluation mode, on the CPU."""
    return load_network(path, "autoencoder", lambda **c: Autoencoder(AutoencoderConfig(**c)))


def check_latents(autoencoder: Autoencoder, channels: int, subject: object) -> None:
    """Refuse an interpolator of other latents than those of the autoencoder.

    Parameters
    ----------
    channels
        Of the latents that the interpolator takes.
    subject
        The interpolator, for the message.

    Raises
    ------
    WeightsError
        If their numbers of channels differ.
    """
    given = autoencoder.config.latent_channels
    if given != channels:
        raise WeightsError(
            subject,
            f"It takes latents of {channels} channels; those of the autoencoder have {given}.",
            "Use an interpolator together with the autoencoder that it was trained with.",
        )


def load_interpolator(path: Path, preset: str) -> LatentInterpolator:
    """Read an interpolator of a preset, in evaluation mode, on the CPU.

    Raises
    ------
    WeightsError
        As `load_network`, or if it is one of the other preset.
    """
    model = load_network(path, "interpolator", _interpolator)
    if model.config.registered != (preset == "default"):
        other = "paper" if preset == "default" else "default"
        raise WeightsError(
            path, f"It holds the preset {other}.", f"Give `preset` {other}, or another file."
        )
    return model


def _interpolator(**sizes: Any) -> LatentInterpolator:
    return LatentInterpolator(InterpolatorConfig(**sizes))
