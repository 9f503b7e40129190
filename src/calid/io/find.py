"""Which inputs a folder holds; masks, hidden files and derivatives are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from calid.errors import InputError
from calid.io.archive import files_below
from calid.io.nifti_write import SUFFIXES

__all__ = ["find_images", "find_inputs", "plain_stem"]

_DICOM = (".dcm", ".ima")
_ENDINGS = re.compile(r"\.(nii|nii\.gz|zip|dcm|ima)$", re.IGNORECASE)
_NOT_IMAGES = re.compile(
    r"_(labels?|lab|lv|rv|gt|seg|segmentation|mask|roi|contours?|dseg|probseg|uncertainty)$",
    re.IGNORECASE,
)
_NOT_FOLDERS = re.compile(r"(derivatives|(labels|masks)(Tr|Ts)?)")
"""Of BIDS derivatives, and of labels in nnU-Net's and MONAI's layouts."""


def plain_stem(name: str) -> str:
    """A file's name without its ending: ``heart`` of ``heart.nii.gz``."""
    return _ENDINGS.sub("", name)


def find_inputs(folder: Path, out: Path | None = None) -> Iterator[Path]:
    """Everything below a folder that can be read as a stack, an input at a time.

    NIfTI and zip files at any depth; and folders of DICOM files, of which the outermost is the
    input: series may lie in folders of their own.

    Parameters
    ----------
    folder
        Where to look.
    out
        Folder of outputs; not searched.

    Raises
    ------
    InputError
        If it cannot be searched.
    """
    found = set()
    for path in find_images(folder, out, (*SUFFIXES, ".zip")):
        found.add(path.parent)
        yield path
    for below in _entries(folder, out):
        taken = any(below in (p, *p.parents) for p in found)
        if below.is_dir() and not taken and _holds_dicom(below):
            yield below


def find_images(
    folder: Path, out: Path | None = None, endings: tuple[str, ...] = SUFFIXES
) -> Iterator[Path]:
    """Files below a folder with one of the endings, as `find_inputs`."""
    for path in _entries(folder, out):
        if path.is_dir():
            yield from find_images(path, out, endings)
        elif path.name.lower().endswith(endings) and not _NOT_IMAGES.search(plain_stem(path.name)):
            yield path


def _entries(folder: Path, out: Path | None) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not _left_out(path, out))
    except OSError as error:
        raise _unsearchable(folder, error) from error


def _left_out(path: Path, out: Path | None) -> bool:
    return (
        path.name.startswith(".")
        or (_NOT_FOLDERS.fullmatch(path.name) is not None and path.is_dir())
        or (out is not None and path.resolve() == out.resolve())
        or (path.is_symlink() and path.resolve() in (p.resolve() for p in path.parents))
    )


def _holds_dicom(folder: Path) -> bool:
    files = (p for p in files_below(folder).files if not p.name.startswith("."))
    return any(p.suffix.lower() in _DICOM or _magic(p) == b"DICM" for p in files)


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:]
    except OSError as error:
        raise _unsearchable(path, error) from error


def _unsearchable(path: Path, error: OSError) -> InputError:
    reason = f"It cannot be searched: {error.strerror or error}."
    return InputError(path, reason, "Check the permissions.")
