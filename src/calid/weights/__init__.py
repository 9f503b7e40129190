"""The weights that come in the package. Nothing here imports torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from calid.errors import WeightsError

__all__ = ["FOLDER", "weights_path"]

FOLDER = Path(__file__).parent

SUMS = "SHA256SUMS"


def weights_path(name: str) -> Path:
    """File of a released network: ``autoencoder``, ``default``, ``paper``, ``segmentation``.

    Raises
    ------
    WeightsError
        If the package was installed without it, or the file is not the one that was released:
        its SHA-256 is compared with ``SHA256SUMS``, which ``sha256sum *.safetensors`` writes.
    """
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise WeightsError(path, "The weights are not in the package.", "Install calid again.")
    sums = FOLDER / SUMS
    if sums.exists() and _line(path) not in sums.read_text().splitlines():
        raise WeightsError(
            path, f"The file is not the one that was released; see {SUMS}.", "Install calid again."
        )
    return path


def _line(path: Path) -> str:
    """A line as ``sha256sum`` writes it."""
    with path.open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}"
