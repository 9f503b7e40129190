"""Small JSON files beside an output, and the hashes that tie them to it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from calid.errors import InputError, OutputError
from calid.io.archive import files_below
from calid.io.atomic import atomic, check_output

__all__ = ["check_sidecar", "sha256", "sidecar_of", "write_json", "write_text"]


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Of a folder, that of the sorted hashes of all files in it, whatever their names, links
    followed.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    if Path(path).is_dir():
        inside = sorted(map(sha256, files_below(Path(path)).files))
        return hashlib.sha256("".join(inside).encode()).hexdigest()
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            path, f"It cannot be read: {error.strerror or error}.", "Check the path."
        ) from error


def sidecar_of(output: Path) -> Path:
    """The JSON file beside a NIfTI output: ``X.json`` of ``X.nii`` or ``X.nii.gz``."""
    return output.with_name(output.name.split(".nii")[0] + ".json")


def check_sidecar(path: Path, inputs: Iterable[Path] = ()) -> Path:
    """Refuse a record that would take the place of somebody else's JSON file.

    Scanners' converters leave such files beside images, with what no image holds.

    Raises
    ------
    OutputError
        As `check_output`, or if a file is there that is not a record of calid's.
    """
    check_output(path, inputs)
    if path.exists():
        try:
            made_by = json.loads(path.read_text(encoding="utf-8"))["software"]["name"]
        except (OSError, ValueError, TypeError, LookupError):
            made_by = None
        if made_by != "calid":
            raise OutputError(
                path,
                "The record of the output would replace this file, which calid has not written.",
                "Choose another name for the output.",
            )
    return path


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
    """Write text atomically, in UTF-8.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with atomic(path) as file:
        file.write(text.encode())


def _plain(value: object) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
