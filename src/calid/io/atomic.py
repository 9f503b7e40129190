"""Files appear under their final name complete, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from calid.errors import OutputError

__all__ = [
    "atomic",
    "check_folder",
    "check_output",
    "make_folder",
    "new_name",
    "sync_folder",
    "try_writing",
]

LEFTOVER_AGE = 3600.0
"""Seconds after which a temporary file belongs to a run that was killed: writing renews its age."""


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file so that no reader ever sees half of it.

    The bytes go to a hidden temporary file beside the target; when the block ends well, it is
    flushed to disk and renamed. When it does not, the temporary file is removed and an older
    file under the same name is as it was. After a power cut or ``kill -9`` the temporary
    file (``.calid-*.part``) stays behind; the target is still the old one. The next file that
    is written into that folder removes it, once it is an hour old.

    Parameters
    ----------
    path
        The final name. A symbolic link is followed.

    Yields
    ------
    BinaryIO
        The temporary file, open for binary writing.

    Raises
    ------
    OutputError
        If the folder or the disk refuses (`OSError` from anything in the block: keep only
        writing in it).
    """
    target = Path(os.path.realpath(path))
    # Not tempfile.mkstemp: its files are private to the user, ours follow the umask.
    temporary = new_name(target.parent)
    _remove_leftovers(target.parent)
    try:
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(
            path,
            f"It could not be written: {error.strerror or error}.",
            "Free some space or choose another folder; a file that was there is unchanged.",
        ) from error


def check_output(
    path: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]] = (),
    suffixes: Iterable[str] = (),
) -> Path:
    """Refuse an output that cannot or must not be written, before any work is done.

    Parameters
    ----------
    path
        The output file. It may exist: it is then replaced.
    inputs
        Files that must survive; the output may be none of them, by whatever name.
    suffixes
        Allowed endings such as ``(".nii", ".nii.gz")``; any if empty. Case does not matter.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    OutputError
        If the ending is another, the folder is missing or refuses new files, the path is a
        folder, or it is one of the inputs.
    """
    path, endings = Path(path), tuple(suffixes)
    if endings and not path.name.lower().endswith(endings):
        raise OutputError(
            path, "The name has the wrong ending.", f"Use one of: {', '.join(endings)}."
        )
    if _folder_at(path):
        raise OutputError(path, "This is a folder.", "Give the name of a file in it.")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise OutputError(path, f"The folder {folder} does not exist.", "Create it first.")
    for source in map(Path, inputs):
        if source.resolve() == path.resolve() or _same(source, path):
            raise OutputError(
                path, "The output is also the input.", "Choose another name: inputs are kept."
            )
    try_writing(folder, path)
    return path


def check_distinct(outputs: Iterable[Path]) -> None:
    """Refuse two outputs of one name.

    Raises
    ------
    OutputError
        If there are two.
    """
    seen: list[Path] = []
    for path in outputs:
        if any(path.resolve() == other.resolve() or _same(path, other) for other in seen):
            raise OutputError(path, "Two outputs have this name.", "Give each its own.")
        seen.append(path)


def check_folder(path: str | os.PathLike[str]) -> Path:
    """Refuse a folder for outputs that cannot be used or made, before any work is done.

    Parameters
    ----------
    path
        It may be missing, and so may the folders above it: nothing is made here.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    OutputError
        If the path, or one above it, is a file, or it refuses new files.
    """
    path = Path(path)
    there = Path(os.path.realpath(path))
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise OutputError(path, f"{there} is a file, not a folder.", "Choose another folder.")
    try_writing(there, path)
    return path


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, if they are missing.

    Raises
    ------
    OutputError
        If that is refused, or a file stands in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            path,
            f"The folder cannot be made: {error.strerror or error}.",
            "Choose a place that you may write to.",
        ) from error
    return path


def new_name(folder: Path, ending: str = ".part") -> Path:
    """A name for a temporary file, hidden and unlike any other; it tells nothing of the target."""
    return folder / f".calid-{secrets.token_hex(8)}{ending}"


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def try_writing(folder: Path, path: Path) -> None:
    """Refuse ``path`` if ``folder``, in which it is to lie, refuses new files.

    Raises
    ------
    OutputError
        If it does.
    """
    # Permission bits do not stop root, and read-only disks have none: try it.
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            path,
            f"The folder {folder} refuses new files: {error.strerror or error}.",
            "Choose a folder that you may write to.",
        ) from error


def _folder_at(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise OutputError(
            path, f"There can be no such file: {error.strerror or error}.", "Choose another name."
        ) from error


def _same(one: Path, two: Path) -> bool:
    try:
        return one.samefile(two)
    except OSError:  # one of them is not there
        return False


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed runs have left behind, and leave that of runs that live."""
    for path in folder.glob(".calid-*"):
        with suppress(OSError):  # another run may be cleaning up as well
            if time.time() - path.stat().st_mtime <= LEFTOVER_AGE:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
