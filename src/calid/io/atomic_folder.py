"""A folder of files appears under its final name complete, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calid.errors import OutputError
from calid.io.atomic import new_name, sync_folder, try_writing

__all__ = ["atomic_folder", "check_new_folder"]


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder so that no reader ever sees half of it.

    The files go to a hidden temporary folder beside the target; when the block ends well, they
    are flushed to disk and the folder is renamed. When it does not, the temporary folder is
    removed. After a power cut or ``kill -9`` it (``.calid-*.part``) stays behind, until the next
    file that is written beside it removes it, once it is an hour old.

    Parameters
    ----------
    path
        The final name: a folder that does not exist yet, or is empty.

    Yields
    ------
    Path
        The temporary folder. Put files in it, no folders.

    Raises
    ------
    OutputError
        If the target holds files, or the disk refuses (`OSError` from anything in the block:
        keep only writing in it).
    """
    target = Path(os.path.realpath(path))
    temporary = new_name(target.parent)
    try:
        try:
            temporary.mkdir()
            yield temporary
            for file in temporary.iterdir():
                _sync_file(file)
            sync_folder(temporary)
            # Not every system renames over an empty folder; none removes one that holds files.
            with suppress(FileNotFoundError):
                target.rmdir()
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(
            path,
            f"The folder could not be written: {error.strerror or error}.",
            "Free some space or choose another folder; nothing was written there.",
        ) from error


def check_new_folder(
    path: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]] = (),
    outputs: Iterable[str | os.PathLike[str]] = (),
) -> Path:
    """Refuse a folder that `atomic_folder` could not make, before any work is done.

    Parameters
    ----------
    path
        The folder. It may exist if it is empty.
    inputs
        Files and folders that are read; the folder may not lie in one of them.
    outputs
        Other files that are written; none may lie in the folder.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    OutputError
        If it is a file, holds files, is the root of a disk, lies in an input, or its parent is
        missing or refuses new folders.
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
    try:
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
    except OSError as error:
        raise OutputError(
            path,
            f"The folder cannot be searched: {error.strerror or error}.",
            "Choose a new folder.",
        ) from error
    try_writing(target.parent, path)
    return path


def _sync_file(path: Path) -> None:
    # Opened for writing: some systems flush nothing through a handle that only reads.
    with path.open("rb+") as file:
        os.fsync(file.fileno())
