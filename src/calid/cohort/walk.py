"""Which subjects a cohort has: from a BIDS tree, a plain folder or a list.

A BIDS file is called ``sub-01_ses-2_run-1_cine.nii.gz``: entities ``key-label``, then a suffix.
Labels are letters and digits only. A derivative keeps the entities of its source and is told
apart by ``desc-calid``.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from calid import find_inputs
from calid.cohort.subject import ENDING, Subject
from calid.errors import InputError, UsageError
from calid.io.find import find_images, find_labels, plain_stem
from calid.words import count

__all__ = ["left_out", "walk"]

_LISTS = (".csv", ".tsv", ".txt")
_DELIMITERS = ",;\t|"
_BIDS_STEM = re.compile(r"(?:[a-z]+-[0-9a-zA-Z+]+_)+[0-9a-zA-Z]+")


def walk(source: Path, match: str = "*", out: Path | None = None) -> list[Subject]:
    """Find all subjects, sorted by name.

    A folder with ``sub-*`` folders is a BIDS tree: NIfTI files at any depth below those. In any
    other folder every NIfTI file, zip file, or folder of DICOM files is a subject, named by its
    path. A list is text (one path a line) or a CSV or TSV table with a column ``path`` and,
    if wanted, ``id``; its delimiter is found, and paths are relative to the list. Hidden files
    and label maps are left out.

    Parameters
    ----------
    source
        Folder or list.
    match
        Pattern for the path below the folder, ``*_cine.nii.gz`` for instance; ``*`` crosses
        folders.
    out
        Outputs; not searched.

    Raises
    ------
    InputError
        If there is no such folder or list, the list is damaged, or nothing is found.
    UsageError
        If two subjects would have the same output.
    """
    source = source.absolute()  # workers may run in another folder
    if not source.exists():
        raise InputError(source, "There is no such folder or list.", "Check the path.")
    if source.is_dir():
        found = list(_search(source, out))
        named = [f for f in found if fnmatchcase(f[0].relative_to(source).as_posix(), match)]
        if not named:
            rule = f"The folder holds no image that matches {match!r}. {left_out(source, out)}"
            raise InputError(
                source,
                rule.rstrip(),
                "Give a BIDS tree, or a folder of NIfTI files or DICOM folders.",
            )
    else:
        named = list(_read_list(source))
    taken: dict[PurePosixPath, Path] = {}
    for path, target in named:
        other = taken.setdefault(target, path)
        if other is not path:
            raise UsageError(
                path,
                f"Its output would be {target}, which is that of {other} too.",
                "Choose files with `match`, or give a list (CSV) with columns path and id.",
            )
    return sorted(Subject(target, path) for target, path in taken.items())


def left_out(source: Path, out: Path | None = None) -> str:
    """A sentence about the label maps that `walk` leaves out; empty if there are none."""
    if not source.is_dir():
        return ""
    labels = [path.relative_to(source).as_posix() for path in find_labels(source, out)]
    shown = ", ".join(labels[:3]) + ", …" * (len(labels) > 3)
    return f"Left out, named as label maps: {count(len(labels), 'file')} ({shown})." * bool(labels)


def _search(root: Path, out: Path | None) -> Iterator[tuple[Path, PurePosixPath]]:
    """Images of a folder, and where their outputs go."""
    people = [p for p in sorted(root.glob("sub-*")) if p.is_dir()]
    for person in people:
        for path in find_images(person, out):
            yield path, _target_in_tree(PurePosixPath(path.relative_to(root)))
    if not people:
        for path in find_inputs(root, out):
            yield path, _target_of(plain_stem(path.relative_to(root).as_posix()))


def _read_list(path: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    """Images of a list, and where their outputs go."""
    if path.suffix.lower() not in _LISTS:
        raise InputError(
            path, "This is neither a folder nor a list.", f"Lists are {', '.join(_LISTS)}."
        )
    try:
        raw = path.read_bytes()
        # Spreadsheets save text as UTF-16 too, with a mark in front.
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            path, f"The list cannot be read ({error}).", "Save it as text in UTF-8."
        ) from error
    if path.suffix.lower() == ".txt":
        lines = (line.strip() for line in text.splitlines())
        rows = [(line, "") for line in lines if line and not line.startswith("#")]
    else:
        rows = list(_rows(path, text))
    if not rows:
        raise InputError(path, "The list is empty.", "Put one path on every line.")
    for file, subject in rows:
        source = path.parent / file
        known = None if subject else _bids_target(PurePosixPath(source.as_posix()))
        yield source, known or _target_of(subject or plain_stem(source.name))


def _rows(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """Path and id of every row; the head says what separates columns."""
    lines = text.splitlines()
    if lines and re.fullmatch("sep=.", lines[0], re.IGNORECASE):  # a spreadsheet's own first line
        del lines[0]
    heads = {
        mark: [cell.strip().lower() for cell in next(csv.reader(lines, delimiter=mark), [])]
        for mark in _DELIMITERS
    }
    mark = max(heads, key=lambda m: ("path" in heads[m], len(heads[m])))
    if "path" not in heads[mark]:
        raise InputError(
            path,
            "The table has no column 'path'.",
            "Its first line names path and, optionally, id.",
        )
    table = csv.reader(lines, delimiter=mark)
    for row_cells in table:
        cells = [cell.strip() for cell in row_cells]
        if table.line_num == 1 or not any(cells):
            continue
        row = dict(zip(heads[mark], cells, strict=False))
        if not row.get("path"):
            raise InputError(path, f"Line {table.line_num} has no path.", "Fill or remove it.")
        yield row["path"], row.get("id", "")


def _bids_target(path: PurePosixPath) -> PurePosixPath | None:
    """Where the derivative of a file with a BIDS name goes; none if it has no such name."""
    stem = plain_stem(path.name)
    if not _BIDS_STEM.fullmatch(stem):
        return None
    *pairs, suffix = stem.split("_")
    entities = dict(pair.split("-") for pair in pairs)
    if not stem.startswith("sub-") or len(entities) < len(pairs):
        return None
    return _target(entities, suffix, path.parent.parts)


def _target_in_tree(path: PurePosixPath) -> PurePosixPath:
    """Target of ``sub-X/[ses-Y/]datatype/…``; a name that is not BIDS becomes the suffix."""
    folders = dict(part.split("-", 1) for part in path.parts[:-1] if "-" in part)
    keys: tuple[str, ...] = ("sub", "ses")
    entities = {key: _label(folders[key]) for key in keys if key in folders}
    suffix = _label(plain_stem(path.name))
    return _bids_target(path) or _target(entities, suffix, path.parent.parts)


def _target_of(subject: str) -> PurePosixPath:
    """Of a stack of which no more than the subject is known."""
    return _target({"sub": _label(subject.removeprefix("sub-"))}, "sax", ())


def _target(entities: Mapping[str, str], suffix: str, folders: Iterable[str]) -> PurePosixPath:
    """Path of a derivative; the datatype is the last folder without a dash, or ``anat``."""
    kept = [f"{key}-{value}" for key, value in entities.items() if key != "desc"]
    person = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    plain = [part for part in folders if re.fullmatch("[0-9a-zA-Z]+", part)]
    name = "_".join([*kept, "desc-calid", suffix]) + ENDING
    return PurePosixPath(*person, *(plain[-1:] or ["anat"]), name)


def _label(text: str) -> str:
    """The letters and digits of a text, as BIDS wants a label; ``none`` if there are none."""
    return re.sub(r"[^0-9a-zA-Z]", "", text) or "none"
