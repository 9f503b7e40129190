"""What was found in a DICOM input, in words and numbers that name nobody."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DicomReport"]


@dataclass(frozen=True)
class DicomReport:
    """What was found, kept and left out."""
