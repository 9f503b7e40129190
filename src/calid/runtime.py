"""Choose the device and number format of networks; no other module decides them.

Parameters are float32, and so are all inputs and outputs of networks: latents, images, codes,
scores. Within `computing`, torch multiplies in the chosen precision inside networks. Everything
between networks is float32 (a sampler's state, registration, losses); `exact` keeps its matrix
products float32. A network ends with ``.float()``; its layers follow the dtype of their inputs.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Literal

import torch

from calid.errors import CalidWarning, UsageError

__all__ = [
    "VARIABLE",
    "PrecisionName",
    "Runtime",
    "choose_device",
    "choose_precision",
    "choose_runtime",
    "computing",
    "exact",
    "precision_name",
]

PrecisionName = Literal["auto", "float32", "bfloat16"]

VARIABLE = "CALID_BFLOAT16"
"""Environment variable: ``yes`` or ``no`` overrides what the hardware reports."""


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
        raise UsageError("`device`", f"{name!r} is not a device.", "Use auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "`device`", "No CUDA device is available here.", "Use `device` auto or cpu."
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


def choose_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """``auto`` is bfloat16 where the hardware multiplies in it, else float32.

    Raises
    ------
    UsageError
        If the name is unknown, or what `VARIABLE` holds.

    Warns
    -----
    CalidWarning
        If bfloat16 is asked for where it is emulated, which is slow.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise UsageError(
            "`precision`", f"{name!r} is not a precision.", "Use auto, float32 or bfloat16."
        )
    fast = _multiplies_bfloat16(device)
    if name == "bfloat16" and not fast:
        warnings.warn(
            f"This {device.type} has no bfloat16 arithmetic: it is emulated, slower than float32.",
            CalidWarning,
            stacklevel=2,
        )
    wanted = fast if name == "auto" else name == "bfloat16"
    return torch.bfloat16 if wanted else torch.float32


def precision_name(precision: torch.dtype) -> str:
    """As `choose_precision` takes it and records show it."""
    return str(precision).removeprefix("torch.")


def computing(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Context in which torch computes networks in a precision."""
    return torch.autocast(device.type, precision, precision != torch.float32)


def exact(device: torch.device) -> torch.autocast:
    """Context inside of `computing` for products that must not be rounded: float32 again."""
    return torch.autocast(device.type, enabled=False)


def _multiplies_bfloat16(device: torch.device) -> bool:
    said = os.environ.get(VARIABLE, "")
    if said not in ("", "yes", "no"):
        raise UsageError(VARIABLE, f"{said!r} is no answer.", "Set it to yes or no, or unset it.")
    if said:
        return said == "yes"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())
