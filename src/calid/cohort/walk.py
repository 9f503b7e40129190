"""Which subjects a cohort has: from a BIDS tree, a plain folder or a list."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from calid.cohort.names import Name
from calid.cohort.subject import Subject
from calid.errors import InputError, UsageError
from calid.io.find import find_images, find_inputs, plain_stem

__all__ = ["parse_shard", "shard", "walk"]

_LISTS = (".csv", ".tsv", ".txt")


def walk(source: Path, match: str = "*", out: Path | None = None) -> list[Subject]:
    """Find all subjects, sorted by name.

    A folder with ``sub-*`` folders is a BIDS tree: NIfTI files at any depth below those. In any
    other folder every NIfTI file, zip file, or folder of DICOM files is a subject, named by its
    path. A list is text (one path a line) or a CSV or TSV table with a column ``path`` and,
    if wanted, ``id``; paths are relative to the list. Hidden files and masks are left out.

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
            raise InputError(
                source,
                f"The folder holds no image that matches {match!r}.",
                "Give a BIDS tree, or a folder of NIfTI files or DICOM folders.",
            )
    else:
        named = list(_read_list(source))
    return _unique(named)


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
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"The list cannot be read ({error}).", "Check the path.") from error
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
    table = csv.DictReader(
        text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ","
    )
    if "path" not in (table.fieldnames or ()):
        raise InputError(
            path,
            "The table has no column 'path'.",
            "Its first line names path and, optionally, id.",
        )
    for row in table:
        if not row["path"]:
            raise InputError(path, f"Line {table.line_num} has no path.", "Fill or remove it.")
        yield row["path"], row.get("id") or ""


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
