"""What an input holds, whether it can be read or not, in words and numbers that name nobody."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from calid.errors import CalidError, CalidWarning
from calid.geometry.affine import SpacingFrom
from calid.io import check_format, read_stack, say_doubts
from calid.io.dicom import OddSlices, open_dicom
from calid.io.dicom_images import DicomReport
from calid.io.nifti import MAX_BYTES, doubt_reconstruction
from calid.stack import SliceStack

_NIBABEL: Any = nib  # whose functions carry no types

__all__ = ["Inspection", "inspect_input"]


@dataclass(eq=False)
class Inspection:
    """What was found."""

    format: str  # NIfTI or DICOM
    stack: SliceStack | None = None  # as it would be read; none if it cannot be
    report: DicomReport | None = None  # of DICOM: what was kept and left out
    warnings: list[str] = field(default_factory=list)  # what reading it would warn about
    error: CalidError | None = None  # why it cannot be read

    def facts(self) -> dict[str, Any]:
        """Everything, for JSON."""
        error = self.error
        return {
            "format": self.format,
            "stack": None if self.stack is None else _facts(self.stack),
            "dicom": None if self.report is None else self.report.facts(),
            "warnings": self.warnings,
            "error": None if error is None else {"rule": error.rule, "remedy": error.remedy},
        }


def inspect_input(
    path: str | os.PathLike[str],
    *,
    spacing_from: SpacingFrom = "auto",
    thickness: float | None = None,
    fill: float | None = None,
    odd_slices: OddSlices = "refuse",
    series: Sequence[int] = (),
    max_bytes: int = MAX_BYTES,
) -> Inspection:
    """Look at an input as `calid.io.read` would, pixels included, and keep what is wrong with it.

    Parameters as there.

    Raises
    ------
    CalidError
        If nothing can be said about it: it is missing, damaged, or not safe to read.
    """
    path = Path(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalidWarning)
        if check_format(path, spacing_from, fill, series):
            found = Inspection("DICOM")
            with open_dicom(
                path, odd_slices=odd_slices, series=series, thickness=thickness, max_bytes=max_bytes
            ) as exam:
                found.report = exam.report
                try:
                    found.stack = exam.read().stack
                except CalidError as error:
                    found.error, found.warnings = error, list(exam.report.warnings)
        else:
            stack = read_stack(
                path, spacing_from=spacing_from, thickness=thickness, fill=fill, max_bytes=max_bytes
            )
            found = Inspection("NIfTI", stack)
            doubt_reconstruction(path)
        if found.stack is not None:
            say_doubts(found.stack)
    texts = [str(w.message) for w in caught if issubclass(w.category, CalidWarning)]
    found.warnings += [text.removeprefix(f"{path}: ") for text in texts]
    return found


def _facts(stack: SliceStack) -> dict[str, Any]:
    frames, slices, rows, columns = stack.shape
    return {
        "slices": slices,
        "frames": frames,
        "matrix": [rows, columns],
        "pixel_spacing_mm": list(stack.pixel_spacing),
        "thickness_mm": stack.thickness,
        "positions_mm": stack.positions.round(4).tolist(),
        "gaps_mm": stack.gaps.round(4).tolist(),
        "frame_times_s": stack.frame_times.round(6).tolist(),
        "axes": axes(stack),
        "oblique_deg": round(float(np.degrees(_NIBABEL.affines.obliquity(stack.affine)).max()), 2),
        "affine": stack.affine.tolist(),
        "dtype": str(stack.data.dtype),
        "slope": stack.intensity.slope,
        "intercept": stack.intensity.intercept,
    }


def axes(stack: SliceStack) -> list[str]:
    """Where columns, rows and slices run to, each by its nearest axis of the body."""
    names = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "feet"}
    return [names[str(code)] for code in _NIBABEL.aff2axcodes(stack.affine)]
