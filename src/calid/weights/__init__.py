"""The weights that come in the package. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

from calid.errors import WeightsError

__all__ = ["FOLDER", "describe_weights", "digest", "preset_weights", "weights_path"]

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
    if not sums.exists() or _line(path) not in sums.read_text().splitlines():
        raise WeightsError(
            path, f"The file is not the one that was released; see {SUMS}.", "Install calid again."
        )
    return path


def preset_weights(preset: str, own: Path | None = None) -> dict[str, Path]:
    """The files that a preset is made of, by name: the autoencoder and the interpolator.

    Parameters
    ----------
    preset
        ``default`` or ``paper``.
    own
        Folder with weights of one's own, named as `calid train` names them. What it lacks is
        the package's; without a folder, all is.

    Raises
    ------
    WeightsError
        If the folder has none of the files, or the package lacks one.
    """
    names = ("autoencoder", preset)
    found = {} if own is None else {n: own / f"{n}.safetensors" for n in names}
    found = {name: path for name, path in found.items() if path.exists()}
    if own is not None and not found:
        raise WeightsError(
            own,
            f"The folder holds neither autoencoder.safetensors nor {preset}.safetensors.",
            "Give the OUT folder of calid train.",
        )
    return {name: found.get(name) or weights_path(name) for name in names}


def describe_weights(path: Path) -> dict[str, Any]:
    """Size, hash, configuration and figures of a safetensors file, from its header alone."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    meta = header.pop("__metadata__")
    return {
        "bytes": path.stat().st_size,
        "sha256": digest(path),
        "parameters": sum(math.prod(tensor["shape"]) for tensor in header.values()),
        "config": json.loads(meta["config"]),
        "figures": json.loads(meta["figures"]),
    }


def _line(path: Path) -> str:
    """A line as ``sha256sum`` writes it."""
    return f"{digest(path)}  {path.name}"


def digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises
    ------
    WeightsError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            path, f"The weights cannot be read ({error}).", "Check the path."
        ) from error
