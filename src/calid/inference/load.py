"""The released networks, or one's own, ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from calid.inference.model import Model
from calid.inference.runtime import choose_runtime
from calid.models.layers import channels_last
from calid.models.store import check_latents, load_autoencoder, load_interpolator
from calid.precision import PrecisionName
from calid.weights import preset_weights

__all__ = ["Preset", "load_model"]

Preset = Literal["default", "paper"]


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
