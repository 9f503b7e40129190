"""What belongs on the record of every table: weights and machine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from calid.evaluation.contender import Contender
from calid.inference.machine import available_cpus, cpu_model
from calid.io.sidecar import sha256
from calid.runtime import choose_device, choose_precision, precision_name
from calid.weights import FOLDER

__all__ = ["record", "weights_sha256"]


def record(
    contenders: Sequence[Contender], *own: Path | None, device: str = "auto"
) -> dict[str, Any]:
    """Weights' hashes, what was sampled how, and where; nothing that names the machine.

    Parameters
    ----------
    device
        That the contenders were asked to compute on.
    own
        As `weights_sha256`.
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

    Parameters
    ----------
    own
        Folders with weights that stand in for those of the package, or beside them.
    """
    folders = [FOLDER, *(folder for folder in own if folder)]
    files = {p.stem: p for folder in folders for p in folder.glob("*.safetensors")}
    return {name: sha256(path) for name, path in sorted(files.items())}
