"""Files in and out: NIfTI, atomic writing, sidecars."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path

from calid.errors import CalidWarning, InputError
from calid.geometry.affine import SpacingFrom
from calid.io.contrast import flat_images
from calid.io.nifti import MAX_BYTES, read_stack
from calid.io.nifti_write import write_uncertainty, write_volume
from calid.stack import SliceStack

__all__ = ["read", "read_stack", "write_uncertainty", "write_volume"]


def read(
    path: str | os.PathLike[str],
    *,
    spacing_from: SpacingFrom = "auto",
    thickness: float | None = None,
    fill: float | None = None,
    max_bytes: int = MAX_BYTES,
) -> SliceStack:
    """Read a short-axis stack by the kind of file it is; see `read_stack` for the options.

    Raises
    ------
    InputError
        If the path is a folder or a DICOM file, which are not read yet, or the file is damaged.
    GeometryError, IntensityError, ResourceError, UsageError
        As `read_stack`.

    Warns
    -----
    CalidWarning
        As `read_stack`, and if images are without any contrast.
    """
    path = Path(path)
    folder = False
    with suppress(OSError):  # of names that are too long; they are refused below
        folder = path.is_dir()
    if folder or path.suffix.lower() in (".dcm", ".ima", ".zip"):
        raise InputError(
            path,
            "DICOM is not read yet; NIfTI is (.nii and .nii.gz).",
            "Convert the short-axis series with dcm2niix.",
        )
    stack = read_stack(
        path, spacing_from=spacing_from, thickness=thickness, fill=fill, max_bytes=max_bytes
    )
    for note in flat_images(stack):
        warnings.warn(note, CalidWarning, stacklevel=2)
    return stack
