"""CaLID: Cardiac Latent Interpolation Diffusion.

Everything here is public, and loaded when it is first used.

>>> import calid
>>> volume = calid.reconstruct(calid.read("stack.nii.gz"))  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calid import errors, weights
    from calid.baselines.registration import registration
    from calid.baselines.rules import Method, linear, nearest
    from calid.data.intensity import IntensityWindow
    from calid.data.phantom import HeartPhantom
    from calid.errors import CalidError
    from calid.evaluation.selfcheck import SelfCheck, self_check
    from calid.inference.densify import densify, densify_like
    from calid.inference.files import reconstruct_file
    from calid.inference.model import Model, load_model
    from calid.inference.options import Answer, Generation, Reading
    from calid.inference.reconstruct import reconstruct
    from calid.io import read
    from calid.io.dicom_write import write_dicom
    from calid.io.find import find_inputs
    from calid.io.labels import CLASSES, check_same_grid, read_labels, write_labels
    from calid.io.nifti import read_stack, write_uncertainty, write_volume
    from calid.io.sidecar import record_of
    from calid.segmentation.heart import heart_region
    from calid.segmentation.measures import (
        Function,
        Measurement,
        cavity_volumes,
        ejection_fraction,
        heart_function,
    )
    from calid.segmentation.segment import Segmenter, load_segmenter
    from calid.stack import Intensity, SliceStack, Volume

__version__ = "0.3.0"

__all__ = [
    "CLASSES",
    "Answer",
    "CalidError",
    "Function",
    "Generation",
    "HeartPhantom",
    "Intensity",
    "IntensityWindow",
    "Measurement",
    "Method",
    "Model",
    "Reading",
    "Segmenter",
    "SelfCheck",
    "SliceStack",
    "Volume",
    "cavity_volumes",
    "check_same_grid",
    "densify",
    "densify_like",
    "ejection_fraction",
    "errors",
    "find_inputs",
    "heart_function",
    "heart_region",
    "linear",
    "load_model",
    "load_segmenter",
    "nearest",
    "read",
    "read_labels",
    "read_stack",
    "reconstruct",
    "reconstruct_file",
    "record_of",
    "registration",
    "self_check",
    "weights",
    "write_dicom",
    "write_labels",
    "write_uncertainty",
    "write_volume",
]

_NAMES = {
    "baselines.registration": "registration",
    "baselines.rules": "Method linear nearest",
    "data.intensity": "IntensityWindow",
    "data.phantom": "HeartPhantom",
    "errors": "CalidError",
    "evaluation.selfcheck": "SelfCheck self_check",
    "inference.densify": "densify densify_like",
    "inference.files": "reconstruct_file",
    "inference.model": "Model load_model",
    "inference.options": "Answer Generation Reading",
    "inference.reconstruct": "reconstruct",
    "io": "read",
    "io.dicom_write": "write_dicom",
    "io.find": "find_inputs",
    "io.labels": "CLASSES check_same_grid read_labels write_labels",
    "io.nifti": "read_stack write_uncertainty write_volume",
    "io.sidecar": "record_of",
    "segmentation.heart": "heart_region",
    "segmentation.measures": (
        "Function Measurement cavity_volumes ejection_fraction heart_function"
    ),
    "segmentation.segment": "Segmenter load_segmenter",
    "stack": "Intensity SliceStack Volume",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    # Importing calid must not import torch: `calid --help` and `calid info` do without.
    if name in _HOME:
        return getattr(import_module(f"calid.{_HOME[name]}"), name)
    if name in __all__:
        return import_module(f"calid.{name}")
    raise AttributeError(f"module 'calid' has no attribute {name!r}")
