"""Records beside outputs, the hashes that tie them together, and files that appear together."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from calid.errors import CalidError, InputError, OutputError
from calid.io.atomic import atomic, check_output, new_name, sync_folder
from calid.io.find import files_below, plain_stem
from calid.io.nifti import SUFFIXES

__all__ = [
    "Write",
    "check_sidecar",
    "record_of",
    "sha256",
    "sidecar_of",
    "together",
    "write_json",
    "write_text",
]


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; an `InputError` if it cannot be read.

    For a folder, it is the hash of the sorted hashes of all files in it; names do not matter, and
    links are followed.
    """
    if Path(path).is_dir():
        inside = sorted(map(sha256, files_below(Path(path)).files))
        return hashlib.sha256("".join(inside).encode()).hexdigest()
    with (
        InputError.of_system(path, "It cannot be read", "Check the path."),
        Path(path).open("rb") as file,
    ):
        return hashlib.file_digest(file, "sha256").hexdigest()


def sidecar_of(output: Path) -> Path:
    """Path of the record of a NIfTI output: ``X.json`` for ``X.nii`` or ``X.nii.gz``.

    If ``X.json`` is the record of the other of these two files, it is kept, and the record of this
    output is ``X.nii.json`` or ``X.nii.gz.json``.
    """
    shared, own = _places(output)
    twins = (output.with_name(shared.stem + suffix) for suffix in SUFFIXES)
    taken = any(_fits(twin, shared) for twin in twins if twin.name != output.name)
    return own if taken else shared


def record_of(output: Path) -> tuple[dict[str, Any], Path | None]:
    """The record that belongs to a file by its hash.

    Returns
    -------
    record
        Empty if there is none.
    foreign
        A record beside it that is of another file under the same name; none if there is none.
    """
    there = [place for place in _places(output) if _hash_in(_load(place)) is not None]
    for place in there:
        if _fits(output, place):
            return _load(place), None
    return {}, there[0] if there else None


def _places(output: Path) -> tuple[Path, Path]:
    stem = plain_stem(output.name)
    return output.with_name(f"{stem}.json"), output.with_name(f"{output.name}.json")


def _load(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _hash_in(record: dict[str, Any]) -> str | None:
    """Hash of the output; empty in a record of calid's that has none."""
    files, output = record.get("files_sha256"), record.get("output")
    if isinstance(files, dict):
        return str(files.get("output", ""))
    return "" if isinstance(output, dict) else None


def _fits(output: Path, place: Path) -> bool:
    wanted = _hash_in(_load(place))
    return bool(wanted) and output.is_file() and sha256(output) == wanted


def check_sidecar(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Refuse a record that would replace somebody else's JSON file.

    Scanners' converters leave such files beside images, with what no image holds.

    Raises
    ------
    OutputError
        As `check_output`, or if a file is there that is not a record of calid's.
    """
    check_output(path, inputs)
    if path.exists():
        software = _load(path).get("software")
        if not isinstance(software, dict) or software.get("name") != "calid":
            raise OutputError(
                path,
                "The record of the output would replace this file, which calid has not written.",
                "Choose another name for the output.",
            )


def write_json(obj: object, path: str | os.PathLike[str]) -> None:
    """Write JSON atomically: sorted keys, indented by two, UTF-8, one newline at the end.

    Numpy scalars and arrays become numbers and lists, paths become strings.

    Raises
    ------
    OutputError
        If the file cannot be written.
    TypeError, ValueError
        If the object is not JSON; NaN and infinity are not. Nothing is written then.
    """
    text = json.dumps(
        obj, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain
    )
    write_text(f"{text}\n", path)


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write text atomically, in UTF-8; what UTF-8 cannot hold of file names is escaped."""
    with atomic(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def _plain(value: object) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


Write = Callable[[Path, Callable[[Path], None]], str]
"""Takes a file's final name and what writes it to a given path; returns its SHA-256."""


@contextmanager
def together() -> Iterator[Write]:
    """Write several files so that a failed run leaves none of them.

    Every file is written in full under a hidden name beside its final one. If the block
    succeeds, all are renamed, one right after the other and in the order of writing. A new last
    file therefore means that all others exist: write the record last, with the hashes of the
    others. A run that is killed between two renames leaves a record that is missing or does not
    fit.

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
