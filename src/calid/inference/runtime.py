"""Where networks run."""

from __future__ import annotations

import torch

from calid.errors import UsageError

__all__ = ["choose_device", "choose_precision"]


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


def choose_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies in it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
