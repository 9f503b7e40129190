"""CaLID: Cardiac Latent Interpolation Diffusion.

>>> import calid
>>> volume = calid.reconstruct(calid.read("stack.nii.gz"))  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calid.errors import CalidError
    from calid.inference.model import Model, load_model
    from calid.inference.options import Generation, Reading
    from calid.inference.reconstruct import reconstruct
    from calid.io import read, write_uncertainty, write_volume
    from calid.segmentation.heart import heart_region
    from calid.stack import SliceStack, Volume

__version__ = "0.3.0"

__all__ = [
    "CalidError",
    "Generation",
    "Model",
    "Reading",
    "SliceStack",
    "Volume",
    "heart_region",
    "load_model",
    "read",
    "reconstruct",
    "write_uncertainty",
    "write_volume",
]

_HOME = {
    "CalidError": "calid.errors",
    "Generation": "calid.inference.options",
    "Model": "calid.inference.model",
    "Reading": "calid.inference.options",
    "heart_region": "calid.segmentation.heart",
    "load_model": "calid.inference.model",
    "read": "calid.io",
    "reconstruct": "calid.inference.reconstruct",
    "write_uncertainty": "calid.io",
    "write_volume": "calid.io",
    "SliceStack": "calid.stack",
    "Volume": "calid.stack",
}


def __getattr__(name: str) -> Any:
    # Importing calid must not import torch: `calid --help` and `calid info` do without.
    if name not in _HOME:
        raise AttributeError(f"module 'calid' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
