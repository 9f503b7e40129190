"""Files and folders of files appear under their final name complete, or not at all."""

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
    "atomic_folder",
    "check_distinct",
    "check_folder",
    "check_new_folder",
    "check_output",
    "make_folder",
    "new_name",
    "sync_folder",
]

LEFTOVER_AGE = 3600.0
"""Age in seconds from which a temporary file counts as abandoned; writing resets the age."""


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file so that no reader ever sees half of it; symbolic links are followed.

    The bytes go to a hidden temporary file beside the target. If the block succeeds, that file is
    flushed to disk and renamed. If not, it is removed, and an older file of the same name is
    unchanged. After a power cut or ``kill -9`` the temporary file (``.calid-*.part``) stays
    behind and the target is still the old one. The next write into that folder removes the
    leftover once it is an hour old.

    Raises
    ------
    OutputError
        If the folder or the disk refuses (`OSError` from anything in the block: keep only
        writing in it).
    """
    remedy = "Free some space or choose another folder; a file that was there is unchanged."
    with _temporary(path, "It could not be written", remedy) as (temporary, target):
        _remove_leftovers(target.parent)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder so that no reader ever sees half of it; errors as those of `atomic`.

    It must not exist yet, or be empty. Put files into the temporary folder that is yielded, no
    folders.
    """
    remedy = "Free some space or choose another folder; nothing was written there."
    with _temporary(path, "The folder could not be written", remedy) as (temporary, target):
        temporary.mkdir()
        yield temporary
        for name in temporary.iterdir():
            # Opened for writing: some systems flush nothing through a handle that only reads.
            with name.open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(temporary)
        # Not every system renames over an empty folder; none removes one that holds files.
        with suppress(FileNotFoundError):
            target.rmdir()
        temporary.rename(target)


@contextmanager
def _temporary(path: str | os.PathLike[str], rule: str, remedy: str) -> Iterator[tuple[Path, Path]]:
    """Name of something that the block makes and renames to the target; removed if it fails."""
    target = Path(os.path.realpath(path))
    # Not tempfile.mkstemp: its files are private to the user, ours follow the umask.
    temporary = new_name(target.parent)
    with OutputError.of_system(path, rule, remedy):
        try:
            yield temporary, target
        except BaseException:
            _remove(temporary)
            raise
        sync_folder(target.parent)


def check_output(
    path: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]] = (),
    suffixes: Iterable[str] = (),
) -> None:
    """Raise an `OutputError` if a file cannot or must not be written, before any work is done.

    An existing file will be replaced. The file must not be one of the ``inputs``, under any name,
    and must end with one of the ``suffixes``, if given; case does not matter.
    """
    path, endings = Path(path), tuple(suffixes)
    if endings and not path.name.lower().endswith(endings):
        raise OutputError(
            path, "The name has the wrong ending.", f"Use one of: {', '.join(endings)}."
        )
    # A name that is too long, a folder that may not be entered.
    with OutputError.of_system(path, "There can be no such file", "Choose another name."):
        if path.is_dir():
            raise OutputError(path, "This is a folder.", "Give the name of a file in it.")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise OutputError(path, f"The folder {folder} does not exist.", "Create it first.")
    for source in map(Path, inputs):
        if _same(source, path):
            raise OutputError(
                path, "The output is also the input.", "Choose another name: inputs are kept."
            )
    _try_writing(folder, path)


def check_distinct(outputs: Iterable[Path]) -> None:
    """Raise an `OutputError` if two outputs have one name."""
    seen: list[Path] = []
    for path in outputs:
        if any(_same(path, other) for other in seen):
            raise OutputError(path, "Two outputs have this name.", "Give each its own.")
        seen.append(path)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise an `OutputError` of a folder for outputs that cannot be used or made.

    It may be missing, and so may the folders above it: nothing is made here.
    """
    path = Path(path)
    there = Path(os.path.realpath(path))
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise OutputError(path, f"{there} is a file, not a folder.", "Choose another folder.")
    _try_writing(there, path)


def check_new_folder(
    path: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]] = (),
    outputs: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Raise an `OutputError` of a folder that `atomic_folder` could not make.

    It may exist if it is empty. It may not lie in one of the ``inputs``, and none of the other
    ``outputs`` may lie in it.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise OutputError(path, "This is a file; a folder is needed.", "Choose another name.")
    if not target.parent.is_dir():
        raise OutputError(path, f"The folder {target.parent} does not exist.", "Create it first.")
    for source in map(Path, inputs):
        if target.is_relative_to(source.resolve()):
            raise OutputError(
                path, "The folder lies in the input.", "Choose one outside: inputs are kept."
            )
    for other in map(Path, outputs):
        if Path(os.path.realpath(other)).is_relative_to(target):
            raise OutputError(
                path, f"{other} would lie in this folder too.", "Choose a folder of its own."
            )
    with OutputError.of_system(path, "The folder cannot be searched", "Choose a new folder."):
        if target.is_dir() and any(target.iterdir()):
            raise OutputError(
                path, "The folder is not empty.", "Choose a new folder, or empty this one."
            )
        if os.path.ismount(target):
            raise OutputError(
                path,
                "This is the root of a disk and cannot appear as a whole.",
                "Choose a folder in it.",
            )
    _try_writing(target.parent, path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if they are missing; else raise an `OutputError`."""
    remedy = "Choose a place that you may write to."
    with OutputError.of_system(path, "The folder cannot be made", remedy):
        path.mkdir(parents=True, exist_ok=True)


def new_name(folder: Path, ending: str = ".part") -> Path:
    """A hidden and unique name for a temporary file, which tells nothing of the target."""
    return folder / f".calid-{secrets.token_hex(8)}{ending}"


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _try_writing(folder: Path, path: Path) -> None:
    """Refuse ``path`` if ``folder``, in which it is to lie, refuses new files."""
    remedy = "Choose a folder that you may write to."
    with (
        OutputError.of_system(path, f"The folder {folder} refuses new files", remedy),
        # Permission bits do not stop root, and read-only disks have none: try it.
        tempfile.TemporaryFile(dir=folder),
    ):
        pass


def _same(one: Path, two: Path) -> bool:
    with suppress(OSError):  # one of them is not there
        return one.resolve() == two.resolve() or one.samefile(two)
    return False


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed runs, but keep those of running ones."""
    for path in folder.glob(".calid-*"):
        with suppress(OSError):  # another run may be cleaning up as well
            if time.time() - path.stat().st_mtime > LEFTOVER_AGE:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
