"""Where networks run, by what and in which precision.

``auto`` takes what measures best at no loss. The device is a GPU if there is one. The precision
is bfloat16 where the hardware multiplies in it, else float32. The runtime is torch: on a CPU with
AVX2, OpenVINO is 1.0 to 1.2 times as fast once it has compiled, and compiling takes as long as
it saves on a heart or two. Both give the same hidden slices to 0.001 dB in PSNR, bfloat16 to
0.01 dB. OpenVINO may pay for films, cohorts and other hardware.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import torch

from calid.errors import CalidWarning, UsageError

__all__ = [
    "PrecisionName",
    "Runtime",
    "RuntimeName",
    "choose_device",
    "choose_precision",
    "choose_runtime",
]

RuntimeName = Literal["auto", "torch", "openvino"]
PrecisionName = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Runtime:
    """What computes the networks; made by `choose_runtime`.

    Parameters
    ----------
    device
        Where tensors are.
    name
        ``torch`` or ``openvino``.
    precision
        Of the products inside the networks; parameters, inputs and outputs are float32.
    """

    device: torch.device
    name: str
    precision: torch.dtype

    def autocast(self) -> torch.autocast:
        """Context in which torch computes in the precision; OpenVINO sees to its own."""
        fast = self.precision != torch.float32 and self.name == "torch"
        return torch.autocast(self.device.type, self.precision, fast)


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


def choose_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """``auto`` is bfloat16 where the hardware multiplies in it, else float32.

    Raises
    ------
    UsageError
        If the name is unknown.

    Warns
    -----
    CalidWarning
        If bfloat16 is asked for where it is emulated, which is slow.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise UsageError(
            "--precision", f"{name!r} is not a precision.", "Use auto, float32 or bfloat16."
        )
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported()
    if name == "bfloat16" and not fast:
        warnings.warn(
            f"This {device.type} has no bfloat16 arithmetic: it is emulated, slower than float32.",
            CalidWarning,
            stacklevel=2,
        )
    wanted = fast if name == "auto" else name == "bfloat16"
    return torch.bfloat16 if wanted else torch.float32


def choose_runtime(device: str = "auto", runtime: str = "auto", precision: str = "auto") -> Runtime:
    """Device, runtime and precision that fit together.

    Raises
    ------
    UsageError
        If a name is unknown, OpenVINO is not installed, or it is asked for on a GPU.
    """
    if runtime not in ("auto", "torch", "openvino"):
        raise UsageError(
            "--runtime", f"{runtime!r} is not a runtime.", "Use auto, torch or openvino."
        )
    if runtime == "openvino":
        from calid.inference.openvino import load_openvino

        if device == "cuda":
            raise UsageError(
                "--runtime openvino", "It computes on the CPU here.", "Use --device cpu."
            )
        load_openvino()
        place = torch.device("cpu") if device == "auto" else choose_device(device)
        return Runtime(place, runtime, choose_precision(place, precision))
    place = choose_device(device)
    return Runtime(place, "torch", choose_precision(place, precision))
