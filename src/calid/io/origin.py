"""Which NIfTI files are reconstructions, so that nothing generated passes for acquired."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path

from calid.errors import CalidWarning, InputError
from calid.io.nifti import open_file, read_header
from calid.io.nifti_write import MADE

__all__ = ["doubt_reconstruction", "refuse_reconstruction"]


def refuse_reconstruction(path: Path) -> None:
    """Refuse a NIfTI file that calid has made, where slices are taken for the scanner's.

    Raises
    ------
    InputError
        If it is one. What is not NIfTI, or cannot be read, is left to `calid.io.read`.
    """
    if _made(path):
        raise InputError(
            path,
            "It is a reconstruction: most of its slices are generated, not acquired.",
            "Give the stack that it was made from.",
        )


def doubt_reconstruction(path: Path) -> None:
    """Say so if a NIfTI file is one that calid has made, where it is no fault to give one.

    Warns
    -----
    CalidWarning
        If it is one.
    """
    if _made(path):
        warnings.warn(
            f"{path}: it is a reconstruction. Generated slices count as acquired ones here.",
            CalidWarning,
            stacklevel=2,
        )


def _made(path: Path) -> bool:
    try:
        with open_file(path) as stream:
            return bytes(read_header(stream, path)["descrip"].item()) == MADE.encode()
    except (InputError, OSError, EOFError, zlib.error):
        return False
