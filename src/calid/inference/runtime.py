"""Where networks run and by what; in which precision, `calid.precision` decides.

``auto`` takes what measures best at no loss. The device is a GPU if there is one, the precision
what its hardware is fast in. The runtime is torch: on a CPU with
AVX2, OpenVINO is 1.0 to 1.2 times as fast once it has compiled, and compiling takes as long as
it saves on a heart or two. Both give the same hidden slices to 0.001 dB in PSNR, bfloat16 to
0.01 dB. OpenVINO may pay for films, cohorts and other hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from calid.errors import UsageError
from calid.precision import choose_precision, computing

__all__ = ["Runtime", "RuntimeName", "choose_device", "choose_runtime"]

RuntimeName = Literal["auto", "torch", "openvino"]


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
        here = self.precision if self.name == "torch" else torch.float32
        return computing(self.device, here)


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
