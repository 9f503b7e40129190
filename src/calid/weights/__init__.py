"""The weights that come in the package. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from calid.errors import WeightsError

__all__ = ["FOLDER", "weights_path"]

FOLDER = Path(__file__).parent


def weights_path(name: str) -> Path:
    """File of a released network: ``autoencoder``, ``default``, ``paper``, ``segmentation``.

    Raises
    ------
    WeightsError
        If the package was installed without it.
    """
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise WeightsError(path, "The weights are not in the package.", "Install calid again.")
    return path
