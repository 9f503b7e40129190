"""Several files of one run: all of them appear, or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calid.errors import CalidError, OutputError
from calid.io.atomic import new_name, sync_folder
from calid.io.sidecar import sha256

__all__ = ["Write", "together"]

Write = Callable[[Path, Callable[[Path], None]], str]
"""Takes a file's final name and what writes it to a given path; returns its SHA-256."""


@contextmanager
def together() -> Iterator[Write]:
    """Write several files so that a run which fails leaves none of them.

    Every file is written whole, under a hidden name beside its final one. When the block ends
    well, all are renamed, one right after the other and in the order of writing. So the last
    file, if it is new, says that all others are there: write the record last, and let it hold
    the hashes of the others. A run that is killed between two renames leaves a record that is
    missing or does not fit.

    Yields
    ------
    Write
        Writes one file.

    Raises
    ------
    CalidError
        Of a writer, about the final name. Older files are then unchanged.
    OutputError
        If a file cannot be given its final name.
    """
    waiting: list[tuple[Path, Path]] = []
    made: list[Path] = []

    def write(path: Path, writer: Callable[[Path], None]) -> str:
        target = Path(os.path.realpath(path))
        # The writer chooses its format by the ending. Nobody who looks for images should find
        # one that waits, so it does that under another.
        draft = new_name(target.parent, "".join(path.suffixes[-2:]))
        hidden = new_name(target.parent)
        made.extend((draft, hidden))
        try:
            writer(draft)
        except CalidError as error:
            rule = error.rule.replace(str(draft), str(path))
            raise type(error)(path, rule, error.remedy) from error
        _rename(draft, hidden)
        waiting.append((hidden, target))
        return sha256(hidden)

    try:
        yield write
        for hidden, target in waiting:
            _rename(hidden, target)
        for folder in {target.parent for _, target in waiting}:
            sync_folder(folder)
    finally:
        for path in made:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _rename(source: Path, target: Path) -> None:
    remedy = "Close programs that have it open, or choose another name."
    with OutputError.of_system(target, "It could not be given its name", remedy):
        source.replace(target)
