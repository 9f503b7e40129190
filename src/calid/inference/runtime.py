"""Where networks run; in which precision, `calid.precision` decides."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calid.errors import UsageError
from calid.precision import choose_precision, computing

__all__ = ["Runtime", "choose_device", "choose_runtime"]


@dataclass(frozen=True)
class Runtime:
    """What computes the networks; made by `choose_runtime`.

    Parameters
    ----------
    device
        Where tensors are.
    precision
        Of the products inside the networks; parameters, inputs and outputs are float32.
    """

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> torch.autocast:
        """Context in which networks compute in the precision."""
        return computing(self.device, self.precision)


def choose_device(name: str) -> torch.device:
    """``auto`` takes a GPU if there is one; ``cpu`` and ``cuda`` are taken at their word.

    Raises
    ------
    UsageError
        If the name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise UsageError("--device", f"{name!r} is not a device.", "Use auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device", "No CUDA device is available here.", "Use --device auto or cpu."
        )
    return torch.device(name)


def choose_runtime(device: str = "auto", precision: str = "auto") -> Runtime:
    """Device and precision that fit together.

    Raises
    ------
    UsageError
        If a name is unknown, or the device is not there.
    """
    place = choose_device(device)
    return Runtime(place, choose_precision(place, precision))
