"""Find the inputs in a folder, and the files of an input: one file, a folder, or a zip.

Label maps, hidden files and derivatives are not inputs. Members of a zip are read into memory one
at a time, so no name in it becomes a path; a zip with names or links that lead out of it is still
refused. Members have numbers, not names, because exporters put patients' names and
UIDs into file names.
"""

from __future__ import annotations

import lzma
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from calid.errors import InputError
from calid.io.nifti import MAX_BYTES, SUFFIXES

__all__ = [
    "Limits",
    "Member",
    "Walk",
    "files_below",
    "find_images",
    "find_inputs",
    "find_labels",
    "members",
    "plain_stem",
]

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
"""Names of label maps: a label word as a separate part, or a shorter word at the end."""
_LABEL_FOLDERS = re.compile(rf"{_WORD}(Tr|Ts)?", re.IGNORECASE)
"""Folders of them, in the layouts of nnU-Net, MONAI and TotalSegmentator for instance."""


def plain_stem(name: str) -> str:
    """A file's name without its ending: ``heart`` of ``heart.nii.gz``."""
    return _ENDINGS.sub("", name)


def _is_label_map(path: Path, root: Path) -> bool:
    """By its name, or by that of a folder below ``root`` that it is in."""
    folders = path.relative_to(root).parts[:-1]
    named = _LABELS.fullmatch(plain_stem(path.name)) is not None
    return named or any(map(_LABEL_FOLDERS.fullmatch, folders))


def find_labels(folder: Path, out: Path | None = None) -> Iterator[Path]:
    """Label maps below a folder: the NIfTI files that `find_images` leaves out by their names."""
    return (p for p in _files(folder, out, SUFFIXES) if _is_label_map(p, folder))


def find_inputs(folder: Path, out: Path | None = None) -> Iterator[Path]:
    """Everything below a folder that can be read as a stack; the folder ``out`` is not searched.

    NIfTI and zip files at any depth; and folders of DICOM files, of which the outermost is the
    input: series may lie in folders of their own.

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
    return (p for p in _files(folder, out, endings) if not _is_label_map(p, folder))


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
    for path in files_below(folder).files:
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in _DICOM:
            return True
        with InputError.of_system(path, *_UNSEARCHABLE), path.open("rb") as file:
            if file.read(132)[128:] == b"DICM":
                return True
    return False


T = TypeVar("T")

DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, RuntimeError),
)
"""What `zipfile` lets through for damaged directories, names, headers and contents."""


@dataclass(frozen=True)
class Limits:
    """What an input may hold."""

    files: int = 50_000  # folders not counted
    total: int = MAX_BYTES  # bytes of one file, and of all files of a zip, unpacked
    ratio: int = 200  # unpacked over packed size of a zip and of each file in it; images reach 10
    spare: int = 16 * 2**20  # bytes up to which the ratio does not matter: empty images pack well


@dataclass(frozen=True)
class Member:
    """One file of an input.

    ``read`` gives its first bytes, or all of them with -1, and raises `InputError`.
    """

    label: str  # its number in the order of paths, for messages
    read: Callable[[int], bytes]


@dataclass(frozen=True)
class Walk:
    """What lies below a folder."""

    files: list[Path] = field(default_factory=list)  # regular ones, sorted
    left_out: Counter[str] = field(default_factory=Counter)  # other entries, by reason
    links: int = 0  # that lead out of the folder and have been followed


@contextmanager
def members(path: Path, limits: Limits) -> Iterator[tuple[list[Member], Walk]]:
    """Yield the sorted regular files of a folder (`files_below`), a zip or a single file.

    They can be read only within the block. The `Walk` says what else a folder holds. An
    `InputError` if the path does not exist, a limit is exceeded, or a zip is damaged, encrypted, or
    holds links or names that lead out of it.
    """
    if not path.is_dir() and not path.is_file():
        raise InputError(path, "There is no such file or folder.", "Check the path.")
    if path.is_file() and _starts_like_zip(path):
        try:
            archive = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise InputError(
                path, "The zip is damaged or cut off.", "Copy or download the file again."
            ) from error
        with archive:
            there = (info for info in archive.infolist() if not info.filename.endswith("/"))
            infos = sorted(there, key=lambda info: info.filename)
            _check_zip(infos, path, limits)
            yield [_in_zip(path, archive, label, info) for label, info in _labelled(infos)], Walk()
    else:
        walk = files_below(path, limits.files) if path.is_dir() else Walk([path])
        yield [_on_disk(path, label, file, limits) for label, file in _labelled(walk.files)], walk


def files_below(folder: Path, most: float = math.inf) -> Walk:
    """Search a folder; links to files and folders are followed.

    No folder is entered twice, by whatever way, so that links in a circle end. An `InputError` if
    one cannot be searched, or there are more than ``most`` files.
    """
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    links = 0
    home = folder.resolve()
    seen = {home}
    try:
        for base, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
            for name in list(folders):
                link, target = (below := Path(base, name)).is_symlink(), below.resolve()
                # A target inside the folder is searched anyway; one that contains it would loop.
                again = link and (target.is_relative_to(home) or home.is_relative_to(target))
                if again or target in seen:
                    left_out["a link to a folder that is read already, or leads back"] += 1
                    folders.remove(name)
                else:
                    links += link
                seen.add(target)
            for file in (Path(base, name) for name in names):
                if file.is_file():
                    files.append(file)
                    links += file.is_symlink() and not file.resolve().is_relative_to(home)
                elif file.is_symlink():
                    left_out["a link that leads nowhere"] += 1
                else:
                    left_out["neither a file nor a folder"] += 1
            if len(files) > most:
                break
    except OSError as error:
        what = "It" if error.filename in (None, str(folder)) else "A folder in it"
        rule = f"{what} cannot be searched: {error.strerror or error}."
        raise InputError(folder, rule, "Check the permissions.") from error
    _check_count(len(files), folder, most)
    return Walk(sorted(files), left_out, links)


def _raise(error: OSError) -> None:
    raise error


def _labelled(items: Sequence[T]) -> Iterator[tuple[str, T]]:
    return ((f"file {number} of {len(items)}", item) for number, item in enumerate(items, 1))


def _on_disk(path: Path, label: str, file: Path, limits: Limits) -> Member:
    size = file.stat().st_size

    def read(limit: int = -1) -> bytes:
        if limit < 0 and size > limits.total:
            raise _too_large(path, label, size, limits)
        with (
            InputError.of_system(path, f"{label} cannot be read", "Check its permissions."),
            file.open("rb") as stream,
        ):
            return stream.read(limit)

    return Member(label, read)


def _starts_like_zip(path: Path) -> bool:
    with InputError.of_system(path, "It cannot be read", "Check it."), path.open("rb") as file:
        packed = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    if path.suffix.lower() == ".zip" and not packed:
        raise InputError(path, "The content is not a zip.", "Copy or download the file again.")
    return packed


def _check_zip(infos: list[zipfile.ZipInfo], path: Path, limits: Limits) -> None:
    """Refuse names and links that lead out of the zip, and implausibly large contents."""
    _check_count(len(infos), path, limits.files)
    for label, info in _labelled(infos):
        # The central directory keeps the name as it was written, slashes of any kind included.
        parts = PurePosixPath(info.orig_filename.replace("\\", "/"))
        drive = PureWindowsPath(info.orig_filename).drive
        if parts.is_absolute() or ".." in parts.parts or drive:
            raise InputError(
                path,
                f"The name of {label} leads out of the zip (an absolute path, or '..').",
                "Do not trust this zip. Make a new one from the images.",
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError(
                path,
                f"{label.capitalize()} is a symbolic link.",
                "Make a new zip that holds the images themselves.",
            )
        if info.flag_bits & 1:
            raise InputError(path, f"{label.capitalize()} is encrypted.", "Unpack it first.")
        if info.file_size > limits.spare and info.file_size > limits.ratio * info.compress_size:
            raise _bomb(path, f"{label.capitalize()} unpacks", limits)
    total = sum(info.file_size for info in infos)
    if total > limits.total:
        raise _too_large(path, "its content", total, limits)
    if total > limits.spare and total > limits.ratio * path.stat().st_size:
        raise _bomb(path, "The files unpack", limits)


def _in_zip(path: Path, archive: zipfile.ZipFile, label: str, info: zipfile.ZipInfo) -> Member:
    def read(limit: int = -1) -> bytes:
        try:
            with archive.open(info) as stream:
                return stream.read(limit)
        except DAMAGE as error:
            raise InputError(
                path,
                f"{label.capitalize()} in the zip is damaged or packed in an unknown way.",
                "Copy or download the zip again.",
            ) from error

    return Member(label, read)


def _check_count(count: int, path: Path, most: float) -> None:
    if count > most:
        rule = f"It holds {count} files; {most} are allowed."
        raise InputError(path, rule, "Give the folder of one exam.")


def _too_large(path: Path, what: str, size: int, limits: Limits) -> InputError:
    return InputError(
        path,
        f"{size / 2**30:.1f} GiB are too much for {what}; {limits.total / 2**30:.1f} are allowed.",
        "Give the short-axis series only.",
    )


def _bomb(path: Path, what: str, limits: Limits) -> InputError:
    return InputError(
        path,
        f"{what} to more than {limits.ratio} times the packed size, as no image does.",
        "Do not trust this zip. Unpack it elsewhere and give the folder.",
    )
