"""`calid info`: what is installed, and what would run where."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import calid
from calid.cli.console import say
from calid.weights import FOLDER, describe_weights

__all__ = ["Info", "describe_machine"]

LIBRARIES = ("torch", "numpy", "nibabel", "pydicom", "ray")
"""Libraries whose versions are shown; ray is an optional extra."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Say what runs where, and what is installed: versions, weights with figures and licence."""

    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> None:
        """Print the description."""
        runs = describe_machine()
        libraries = {name: _version(name) for name in LIBRARIES}
        weights = {p.stem: describe_weights(p) for p in sorted(FOLDER.glob("*.safetensors"))}
        if self.json:
            content = {
                "calid": calid.__version__,
                "runs_on": runs,
                "libraries": libraries,
                "licence": {"code": "Apache-2.0", "weights": "CC BY-NC-SA 4.0"},
                "weights": weights,
            }
            say(json.dumps(content, indent=2))
            return
        say(f"calid {calid.__version__}, code Apache-2.0, weights CC BY-NC-SA 4.0")
        gpu = f"{runs['gpu']}, " if runs["gpu"] else ""
        free = f", {runs['free_memory_gb']:.1f} GB free" if runs["free_memory_gb"] else ""
        say(f"networks run on {runs['device']} in {runs['precision']}")
        say(f"  {gpu}{runs['processor']}, {runs['cores']} cores{free}")
        say("  ".join(f"{name} {found or 'not installed'}" for name, found in libraries.items()))
        for name, facts in weights.items():
            figures = "  ".join(f"{k} {v:.4g}" for k, v in facts["figures"].items())
            size = f"{facts['parameters'] / 1e6:.1f} M parameters, {facts['bytes'] / 1e6:.1f} MB"
            say(f"{name}: {size}")
            say(f"  sha256 {facts['sha256']}")
            say(f"  on held-out subjects: {figures}")


def describe_machine() -> dict[str, Any]:
    """Where networks would run without options, by what, and what is there."""
    import torch

    from calid.inference.machine import available_cpus, cpu_model
    from calid.inference.memory import available_memory
    from calid.runtime import choose_runtime, precision_name

    runtime, free = choose_runtime(), available_memory()
    return {
        "device": runtime.device.type,
        "precision": precision_name(runtime.precision),
        "gpu": torch.cuda.get_device_name() if runtime.device.type == "cuda" else None,
        "processor": cpu_model(),
        "cores": available_cpus(),
        "free_memory_gb": None if free is None else round(free / 1e9, 1),
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    with suppress(PackageNotFoundError):
        return version(package)
    return None
