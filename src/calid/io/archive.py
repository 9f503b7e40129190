"""The files of an input: one file, a folder, or a zip that is never unpacked to disk.

Members of a zip are read into memory one at a time, so that no name in it becomes a path. A
zip whose names or links point elsewhere is refused all the same: it was made to harm, or by a
broken program. Members have numbers, not names, because exporters put patients' names and
UIDs into file names.
"""

from __future__ import annotations

import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from calid.errors import InputError

__all__ = ["Limits", "Member", "members"]


DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, RuntimeError),
)
"""What `zipfile` lets through for damaged directories, names, headers and contents."""


@dataclass(frozen=True)
class Limits:
    """What an input may hold.

    Parameters
    ----------
    files
        Number of files, folders not counted.
    total
        Bytes of one file, and of all files of a zip, unpacked.
    ratio
        Unpacked over packed size of a zip, and of each file in it; images reach 2 to 10.
    spare
        Bytes up to which the ratio does not matter: an empty image packs well.
    """

    files: int = 50_000
    total: int = 4 * 2**30
    ratio: int = 200
    spare: int = 16 * 2**20


@dataclass(frozen=True)
class Member:
    """One file of an input.

    Parameters
    ----------
    label
        Its number in the order of paths, for messages.
    size
        In bytes, unpacked.
    read
        Its first bytes, or all of them without an argument. Raises `InputError`.
    """

    label: str
    size: int
    read: Callable[[int], bytes]


@contextmanager
def members(path: Path, limits: Limits) -> Iterator[tuple[list[Member], int]]:
    """Regular files of a folder, a zip or a path that is one file, in the order of paths.

    Parameters
    ----------
    path
        A folder is searched recursively. In it, links are followed to files inside of it only.
    limits
        Beyond them nothing is read.

    Yields
    ------
    list of Member, int
        The files, and the number of links out of the folder, which are not followed. Members
        can be read within the block only.

    Raises
    ------
    InputError
        If the path does not exist or a limit is broken; if a zip is damaged, encrypted, or
        holds links or names that lead out of it.
    """
    if path.is_dir():
        files, links = _walk(path)
        _check_count(len(files), path, limits)
        yield [_on_disk(path, *pair, len(files), limits) for pair in enumerate(files, 1)], links
    elif not path.is_file():
        raise InputError(path, "There is no such file or folder.", "Check the path.")
    elif _starts_like_zip(path):
        with _open_zip(path) as archive:
            infos = sorted(
                (i for i in archive.infolist() if not i.filename.endswith("/")), key=_name
            )
            _check_zip(infos, path, limits)
            yield [_in_zip(path, archive, *pair, len(infos)) for pair in enumerate(infos, 1)], 0
    else:
        yield [_on_disk(path, 1, path, 1, limits)], 0


def _walk(folder: Path) -> tuple[list[Path], int]:
    files, links, home = [], 0, folder.resolve()
    for base, _, names in os.walk(folder):
        for file in (Path(base) / name for name in names):
            if file.is_symlink() and not file.resolve().is_relative_to(home):
                links += 1
            elif file.is_file():
                files.append(file)
    return sorted(files), links


def _on_disk(path: Path, number: int, file: Path, count: int, limits: Limits) -> Member:
    label = f"file {number} of {count}"
    size = file.stat().st_size

    def read(limit: int = -1) -> bytes:
        if limit < 0 and size > limits.total:
            raise _too_large(path, label, size, limits)
        try:
            with file.open("rb") as stream:
                return stream.read(limit)
        except OSError as error:
            raise InputError(
                path, f"{label} cannot be read: {error.strerror}.", "Check its permissions."
            ) from error

    return Member(label, size, read)


def _starts_like_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            packed = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError as error:
        raise InputError(path, f"It cannot be read: {error.strerror}.", "Check it.") from error
    if path.suffix.lower() == ".zip" and not packed:
        raise InputError(path, "The content is not a zip.", "Copy or download the file again.")
    return packed


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise InputError(
            path, "The zip is damaged or cut off.", "Copy or download the file again."
        ) from error
    with archive:
        yield archive


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename


def _check_zip(infos: list[zipfile.ZipInfo], path: Path, limits: Limits) -> None:
    """Refuse what leads out of the zip, and what is larger than it has any reason to be."""
    _check_count(len(infos), path, limits)
    for number, info in enumerate(infos, 1):
        label = f"file {number} of {len(infos)}"
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


def _in_zip(
    path: Path, archive: zipfile.ZipFile, number: int, info: zipfile.ZipInfo, count: int
) -> Member:
    def read(limit: int = -1) -> bytes:
        try:
            with archive.open(info) as stream:
                return stream.read(limit)
        except DAMAGE as error:
            raise InputError(
                path,
                f"File {number} of {count} in the zip is damaged or packed in an unknown way.",
                "Copy or download the zip again.",
            ) from error

    return Member(f"file {number} of {count}", info.file_size, read)


def _check_count(count: int, path: Path, limits: Limits) -> None:
    if count > limits.files:
        raise InputError(
            path,
            f"It holds {count} files; {limits.files} are allowed.",
            "Give the folder of one exam.",
        )


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
