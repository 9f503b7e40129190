"""BIDS names: of what goes in, and of the derivative that comes out.

A BIDS file is called ``sub-01_ses-2_run-1_cine.nii.gz``: entities ``key-label``, then a suffix.
Labels are letters and digits only. A derivative keeps the entities of its source and is told
apart by ``desc-calid``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from calid.io.find import plain_stem

__all__ = ["ENDING", "Name", "label"]

ENDING = ".nii.gz"
"""Of every output."""

_ENTITY = re.compile(r"[a-z]+-[0-9a-zA-Z+]+")
_STEM = re.compile(rf"(?:{_ENTITY.pattern}_)+[0-9a-zA-Z]+")


def label(text: str) -> str:
    """The letters and digits of a text, as BIDS wants a label; ``none`` if there are none."""
    return re.sub(r"[^0-9a-zA-Z]", "", text) or "none"


@dataclass(frozen=True)
class Name:
    """The parts of a BIDS name.

    Parameters
    ----------
    entities
        Keys and labels in their order, ``sub`` first.
    suffix
        What kind of image it is: ``cine``, ``T1w``, …
    datatype
        The folder it lies in: ``anat``, ``cine``, …
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str
    datatype: str

    @classmethod
    def parse(cls, path: PurePosixPath) -> Name | None:
        """Parts of a path below a BIDS root; none if its last part is no BIDS name."""
        stem = plain_stem(path.name)
        if not _STEM.fullmatch(stem):
            return None
        *pairs, suffix = stem.split("_")
        entities = tuple((pair.split("-")[0], pair.split("-")[1]) for pair in pairs)
        if entities[0][0] != "sub" or len(dict(entities)) < len(entities):
            return None
        return cls(entities, suffix, _datatype(path.parent.parts))

    @classmethod
    def placed(cls, path: PurePosixPath) -> Name:
        """Parts of a path ``sub-X/[ses-Y/]datatype/…`` whose own name may be any.

        The file's name then becomes the suffix.
        """
        parsed = cls.parse(path)
        if parsed is not None:
            return parsed
        folders = [part.split("-", 1) for part in path.parts[:-1]]
        found = {pair[0]: pair[1] for pair in folders if len(pair) == 2}
        pairs = [(key, label(found[key])) for key in ("sub", "ses") if key in found]
        datatype = _datatype(path.parent.parts)
        return cls(tuple(pairs), label(plain_stem(path.name)), datatype)

    @classmethod
    def of_subject(cls, subject: str) -> Name:
        """Name for a stack of which no more than the subject is known."""
        return cls((("sub", label(subject.removeprefix("sub-"))),), "sax", "anat")

    @property
    def stem(self) -> str:
        """Name of the derivative without its ending."""
        kept = [f"{key}-{value}" for key, value in self.entities if key != "desc"]
        return "_".join([*kept, "desc-calid", self.suffix])

    @property
    def derivative(self) -> PurePosixPath:
        """Where the reconstruction lies below the root of the derivatives."""
        entities = dict(self.entities)
        folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
        return PurePosixPath(*folders, self.datatype, self.stem + ENDING)


def _datatype(folders: Iterable[str]) -> str:
    """The last folder that is neither subject nor session; ``anat`` if there is none."""
    last = (part for part in reversed(list(folders)) if re.fullmatch("[0-9a-zA-Z]+", part))
    return next(last, "anat")
