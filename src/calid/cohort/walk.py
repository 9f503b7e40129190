"""Which subjects a cohort has: from a BIDS tree, a plain folder or a list."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from calid.cohort.names import Name
from calid.cohort.subject import Subject
from calid.errors import InputError, UsageError
from calid.io.find import find_images, find_inputs, find_labels, plain_stem
from calid.words import count

__all__ = ["left_out", "parse_shard", "shard", "walk"]

_LISTS = (".csv", ".tsv", ".txt")
_DELIMITERS = ",;\t|"


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
    source = source.absolute()  # workers may stand in another folder
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
    return _unique(named)


def left_out(source: Path, out: Path | None = None) -> str:
    """A sentence about the label maps that `walk` leaves out; empty if there are none."""
    if not source.is_dir():
        return ""
    labels = [path.relative_to(source).as_posix() for path in find_labels(source, out)]
    shown = ", ".join(labels[:3]) + ", …" * (len(labels) > 3)
    return f"Left out, named as label maps: {count(len(labels), 'file')} ({shown})." * bool(labels)


def parse_shard(text: str) -> tuple[int, int]:
    """``(i, n)`` of ``i/n``, 1 to n.

    Raises
    ------
    UsageError
        If it is anything else.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise UsageError("--shard", f"{text!r} is no part.", "Use 1/4, 2/4, 3/4 and 4/4.")
    return number, count


def shard(subjects: Iterable[Subject], number: int, count: int) -> list[Subject]:
    """Part ``number`` of ``count`` (from 1): every count-th subject in the order of names.

    Parts are disjoint, together they are all, and they differ in size by one at most. That
    holds as long as every part sees the same subjects.
    """
    return sorted(subjects)[number - 1 :: count]


def _search(root: Path, out: Path | None) -> Iterator[tuple[Path, Name]]:
    people = [p for p in sorted(root.glob("sub-*")) if p.is_dir()]
    for person in people:
        for path in find_images(person, out):
            yield path, Name.placed(PurePosixPath(path.relative_to(root)))
    if not people:
        for path in find_inputs(root, out):
            yield path, _flat(root, path)


def _flat(root: Path, path: Path) -> Name:
    return Name.of_subject(plain_stem(path.relative_to(root).as_posix()))


def _read_list(path: Path) -> Iterator[tuple[Path, Name]]:
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
        known = None if subject else Name.parse(PurePosixPath(source.as_posix()))
        yield source, known or Name.of_subject(subject or plain_stem(source.name))


def _rows(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """Path and id of every row; the head says what separates columns."""
    lines = text.splitlines()
    if lines and re.fullmatch("sep=.", lines[0], re.IGNORECASE):  # a spreadsheet's own first line
        del lines[0]
    heads = {mark: _cells(next(csv.reader(lines, delimiter=mark), [])) for mark in _DELIMITERS}
    mark = max(heads, key=lambda m: ("path" in _lower(heads[m]), len(heads[m])))
    head = _lower(heads[mark])
    if "path" not in head:
        raise InputError(
            path,
            "The table has no column 'path'.",
            "Its first line names path and, optionally, id.",
        )
    table = csv.reader(lines, delimiter=mark)
    for cells in map(_cells, table):
        row = dict(zip(head, cells, strict=False))
        if table.line_num == 1 or not any(cells):
            continue
        if not row.get("path"):
            raise InputError(path, f"Line {table.line_num} has no path.", "Fill or remove it.")
        yield row["path"], row.get("id", "")


def _cells(row: Iterable[str]) -> list[str]:
    return [cell.strip() for cell in row]


def _lower(row: Iterable[str]) -> list[str]:
    return [cell.lower() for cell in row]


def _unique(named: Iterable[tuple[Path, Name]]) -> list[Subject]:
    found: dict[PurePosixPath, Subject] = {}
    for source, name in named:
        subject = Subject(name.derivative, source)
        other = found.setdefault(subject.target, subject)
        if other is not subject:
            raise UsageError(
                source,
                f"Its output would be {subject.target}, which is that of {other.source} too.",
                "Choose files with --match, or give a list (CSV) with columns path and id.",
            )
    return sorted(found.values())
