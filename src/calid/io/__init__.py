"""Files in and out: NIfTI and DICOM, atomic writing, sidecars."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from calid.errors import CalidWarning, UsageError
from calid.geometry.affine import SpacingFrom
from calid.io.contrast import doubtful_images
from calid.io.nifti import MAX_BYTES, SUFFIXES, read_stack, write_uncertainty, write_volume
from calid.stack import SliceStack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calid.io.dicom import OddSlices
    from calid.io.dicom_write import Headers

__all__ = [
    "Reader",
    "is_dicom",
    "read",
    "read_stack",
    "read_with_headers",
    "write_uncertainty",
    "write_volume",
]


Reader = Callable[[Path], SliceStack]
"""What reads a stack as `read` does, with options or without."""


def read(
    path: str | os.PathLike[str],
    *,
    spacing_from: SpacingFrom = "auto",
    thickness: float | None = None,
    fill: float | None = None,
    odd_slices: OddSlices = "refuse",
    series: Sequence[int] = (),
    max_bytes: int = MAX_BYTES,
) -> SliceStack:
    """Read a short-axis stack: NIfTI, or DICOM in a folder, a zip or one file.

    Parameters
    ----------
    spacing_from, fill
        For NIfTI only; see `read_stack`.
    odd_slices, series
        For DICOM only; see `calid.io.dicom.read_dicom`.
    thickness, max_bytes
        For both; see either function.

    Raises
    ------
    InputError
        If the file or folder is missing, damaged, or neither.
    GeometryError, IntensityError, ResourceError, UsageError
        As `read_stack` and `read_dicom`.

    Warns
    -----
    CalidWarning
        As `read_stack` and `read_dicom`, and if images are without any contrast.
    """
    return read_with_headers(
        path,
        spacing_from=spacing_from,
        thickness=thickness,
        fill=fill,
        odd_slices=odd_slices,
        series=series,
        max_bytes=max_bytes,
    )[0]


def read_with_headers(
    path: str | os.PathLike[str],
    *,
    spacing_from: SpacingFrom = "auto",
    thickness: float | None = None,
    fill: float | None = None,
    odd_slices: OddSlices = "refuse",
    series: Sequence[int] = (),
    max_bytes: int = MAX_BYTES,
) -> tuple[SliceStack, Headers | None]:
    """Read a stack and, for DICOM, the header of every image in it: ``[frame][slice]``.

    Headers hold everything in the files except pixels, including the patient's name.
    """
    path = Path(path)
    if check_format(path, spacing_from, fill, series):
        from calid.io.dicom import read_dicom

        found = read_dicom(
            path, odd_slices=odd_slices, series=series, thickness=thickness, max_bytes=max_bytes
        )
        say_doubts(found.stack)
        return found.stack, found.headers
    stack = read_stack(
        path, spacing_from=spacing_from, thickness=thickness, fill=fill, max_bytes=max_bytes
    )
    say_doubts(stack)
    return stack, None


def say_doubts(stack: SliceStack) -> None:
    """Warn of what is doubtful about a stack's images."""
    for note in doubtful_images(stack):
        warnings.warn(note, CalidWarning, stacklevel=3)


def check_format(
    path: Path, spacing_from: SpacingFrom, fill: float | None, series: Sequence[int]
) -> bool:
    """Whether an input is DICOM; options that only the other format has are a `UsageError`."""
    dicom = is_dicom(path)
    if dicom and (spacing_from != "auto" or fill is not None):
        raise UsageError(
            path, "DICOM has one spacing and no voxels to fill.", "Drop --spacing-from and --fill."
        )
    if series and not dicom:
        raise UsageError(path, "NIfTI has no series.", "Drop --series.")
    return dicom


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a path is read as DICOM: folders, zips, and what a file's first bytes say."""
    path = Path(path)
    with suppress(OSError):  # of names that are too long; reading refuses them
        if path.is_dir():
            return True
    if path.suffix.lower() in (".dcm", ".ima", ".zip"):
        return True
    try:
        if path.name.lower().endswith(SUFFIXES) or not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or head[:4] == b"PK\x03\x04"
