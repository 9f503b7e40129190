"""DICOM in: a folder, a zip or one file becomes the short-axis stack that is in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calid.io.dicom_report import DicomReport
from calid.stack import SliceStack

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["DicomStack", "read_dicom"]


@dataclass(frozen=True, eq=False)
class DicomStack:
    """A stack, and what of its source a NIfTI file could not hold.

    Parameters
    ----------
    stack
        The short-axis slices.
    headers
        Of every kept image, without pixels: ``headers[frame][slice]`` belongs to
        ``stack.data[frame, slice]``. Frames of enhanced (multi-frame) files are given the
        geometry, time and rescaling of their functional groups at the top level. They hold
        everything that the files hold, the patient's name included.
    report
        What was found, kept and left out; names nobody.
    """

    stack: SliceStack
    headers: tuple[tuple[Dataset, ...], ...]
    report: DicomReport


def read_dicom(path: str | os.PathLike[str]) -> DicomStack:
    """Read the short-axis stack of an exam."""
    raise NotImplementedError
