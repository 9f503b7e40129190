"""Files appear under their final name complete, or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from calid.errors import OutputError

__all__ = ["atomic", "check_output", "make_folder"]


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file so that no reader ever sees half of it.

    The bytes go to a hidden temporary file beside the target; when the block ends well, it is
    flushed to disk and renamed. When it does not, the temporary file is removed and an older
    file under the same name is as it was. After a power cut or ``kill -9`` the temporary
    file (``.calid-*.part``) stays behind; the target is still the old one.

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
    temporary = target.parent / f".calid-{secrets.token_hex(8)}.part"
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
        _sync_folder(target.parent)
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
    if path.is_dir():
        raise OutputError(path, "This is a folder.", "Give the name of a file in it.")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise OutputError(path, f"The folder {folder} does not exist.", "Create it first.")
    for source in map(Path, inputs):
        if source.resolve() == path.resolve() or (_exist(source, path) and source.samefile(path)):
            raise OutputError(
                path, "The output is also the input.", "Choose another name: inputs are kept."
            )
    try:
        # Permission bits do not stop root, and read-only disks have none: try it.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            path,
            f"The folder {folder} refuses new files: {error.strerror or error}.",
            "Choose a folder that you may write to.",
        ) from error
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


def _exist(*paths: Path) -> bool:
    return all(path.exists() for path in paths)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
