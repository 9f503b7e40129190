"""The files of an input: one file, a folder, or a zip that is never unpacked to disk.

Members of a zip are read into memory one at a time, so that no name in it becomes a path. A
zip whose names or links point elsewhere is refused all the same: it was made to harm, or by a
broken program. Members have numbers, not names, because exporters put patients' names and
UIDs into file names.
"""

from __future__ import annotations

import lzma
import math
import os
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

__all__ = ["Limits", "Member", "Walk", "files_below", "members"]


T = TypeVar("T")

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


@dataclass(frozen=True)
class Walk:
    """What lies below a folder.

    Parameters
    ----------
    files
        Regular files, sorted.
    left_out
        How many other entries there are, by reason.
    links
        How many links lead out of the folder and have been followed.
    """

    files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    links: int = 0


@contextmanager
def members(path: Path, limits: Limits) -> Iterator[tuple[list[Member], Walk]]:
    """Regular files of a folder, a zip or a path that is one file, in the order of paths.

    Parameters
    ----------
    path
        A folder is searched recursively, as `files_below` does.
    limits
        Beyond them nothing is read.

    Yields
    ------
    list of Member, Walk
        The files, which can be read within the block only, and what else a folder holds.

    Raises
    ------
    InputError
        If the path does not exist or a limit is broken; if a zip is damaged, encrypted, or
        holds links or names that lead out of it.
    """
    if path.is_dir():
        walk = files_below(path, limits.files)
        yield [_on_disk(path, label, file, limits) for label, file in _labelled(walk.files)], walk
    elif not path.is_file():
        raise InputError(path, "There is no such file or folder.", "Check the path.")
    elif _starts_like_zip(path):
        with _open_zip(path) as archive:
            there = (info for info in archive.infolist() if not info.filename.endswith("/"))
            infos = sorted(there, key=lambda info: info.filename)
            _check_zip(infos, path, limits)
            yield [_in_zip(path, archive, label, info) for label, info in _labelled(infos)], Walk()
    else:
        yield [_on_disk(path, label, file, limits) for label, file in _labelled([path])], Walk()


def files_below(folder: Path, most: float = math.inf) -> Walk:
    """Search a folder; links to files and folders are followed.

    No folder is entered twice, by whatever way, so that links in a circle end.

    Raises
    ------
    InputError
        If a folder cannot be searched, or there are more than ``most`` files.
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
                # What is in the folder itself is found there; what it is in would come round.
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
        raise InputError(
            folder,
            f"{what} cannot be searched: {error.strerror or error}.",
            "Check the permissions.",
        ) from error
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

    return Member(label, size, read)


def _starts_like_zip(path: Path) -> bool:
    with InputError.of_system(path, "It cannot be read", "Check it."), path.open("rb") as file:
        packed = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    if path.suffix.lower() == ".zip" and not packed:
        raise InputError(path, "The content is not a zip.", "Copy or download the file again.")
    return packed


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except DAMAGE as error:
        raise InputError(
            path, "The zip is damaged or cut off.", "Copy or download the file again."
        ) from error


def _check_zip(infos: list[zipfile.ZipInfo], path: Path, limits: Limits) -> None:
    """Refuse what leads out of the zip, and what is larger than it has any reason to be."""
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

    return Member(label, info.file_size, read)


def _check_count(count: int, path: Path, most: float) -> None:
    if count > most:
        raise InputError(
            path,
            f"It holds {count} files; {most} are allowed.",
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
