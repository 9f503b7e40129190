"""What belongs on the record of every table: weights and machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from calid.evaluation.contender import Contender
from calid.inference.runtime import choose_precision
from calid.io.sidecar import sha256
from calid.weights import FOLDER

__all__ = ["record"]


def record(contenders: Sequence[Contender], baselines: Path | None) -> dict[str, Any]:
    """Weights' hashes, what was sampled how, and where; nothing that names the machine."""
    files = [*FOLDER.glob("*.safetensors")]
    files += baselines.glob("*.safetensors") if baselines else []
    cuda = torch.cuda.is_available()
    return {
        "weights_sha256": {p.stem: sha256(p) for p in sorted(files)},
        "settings": {c.name: c.settings for c in contenders},
        "machine": {
            "processor": torch.cuda.get_device_name() if cuda else platform.machine(),
            "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "precision": str(choose_precision(torch.device("cuda" if cuda else "cpu"))),
            "torch": version("torch"),
        },
    }
