"""Which inputs a folder holds; label maps, hidden files and derivatives are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from calid.errors import InputError
from calid.io.archive import files_below
from calid.io.nifti_write import SUFFIXES

__all__ = ["find_images", "find_inputs", "find_labels", "is_label_map", "plain_stem"]

_DICOM = (".dcm", ".ima")
_UNSEARCHABLE = "It cannot be searched", "Check the permissions."
_ENDINGS = re.compile(r"\.(nii|nii\.gz|zip|dcm|ima)$", re.IGNORECASE)
_WORD = (
    r"(label(map)?s?|lbl|gt|ground_?truth|segs?|segmentations?|masks?|annotations?|dseg|probseg"
    r"|uncertainty)\d*"
)
_LABELS = re.compile(
    rf"(.*[_.])?{_WORD}([_.-].*)?|.+-{_WORD}|.+[_.-](lab|lv|rv|myo|roi|contours?)", re.IGNORECASE
)
"""Names of label maps: one of the words as a part of its own, or a shorter one at the end."""
_LABEL_FOLDERS = re.compile(rf"{_WORD}(Tr|Ts)?", re.IGNORECASE)
"""Folders of them, in the layouts of nnU-Net, MONAI and TotalSegmentator for instance."""


def plain_stem(name: str) -> str:
    """A file's name without its ending: ``heart`` of ``heart.nii.gz``."""
    return _ENDINGS.sub("", name)


def is_label_map(path: Path, root: Path) -> bool:
    """Whether a file below ``root`` is a label map by its name, or by that of a folder of it."""
    folders = path.relative_to(root).parts[:-1]
    named = _LABELS.fullmatch(plain_stem(path.name)) is not None
    return named or any(map(_LABEL_FOLDERS.fullmatch, folders))


def find_labels(folder: Path, out: Path | None = None) -> Iterator[Path]:
    """Label maps below a folder: the NIfTI files that `find_images` leaves out by their names."""
    return (p for p in _files(folder, out, SUFFIXES) if is_label_map(p, folder))


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
        labels = _LABEL_FOLDERS.fullmatch(below.name)
        if below.is_dir() and not taken and not labels and _holds_dicom(below):
            yield below


def find_images(
    folder: Path, out: Path | None = None, endings: tuple[str, ...] = SUFFIXES
) -> Iterator[Path]:
    """Files below a folder with one of the endings, as `find_inputs`."""
    return (p for p in _files(folder, out, endings) if not is_label_map(p, folder))


def _files(folder: Path, out: Path | None, endings: tuple[str, ...]) -> Iterator[Path]:
    for path in _entries(folder, out):
        if path.is_dir():
            yield from _files(path, out, endings)
        elif path.name.lower().endswith(endings):
            yield path


def _entries(folder: Path, out: Path | None) -> list[Path]:
    with InputError.of_system(folder, *_UNSEARCHABLE):
        return sorted(path for path in folder.iterdir() if not _left_out(path, out))


def _left_out(path: Path, out: Path | None) -> bool:
    return (
        path.name.startswith(".")
        or (path.name == "derivatives" and path.is_dir())
        or (out is not None and path.resolve() == out.resolve())
        or (path.is_symlink() and path.resolve() in (p.resolve() for p in path.parents))
    )


def _holds_dicom(folder: Path) -> bool:
    files = (p for p in files_below(folder).files if not p.name.startswith("."))
    return any(p.suffix.lower() in _DICOM or _magic(p) == b"DICM" for p in files)


def _magic(path: Path) -> bytes:
    with InputError.of_system(path, *_UNSEARCHABLE), path.open("rb") as file:
        return file.read(132)[128:]
