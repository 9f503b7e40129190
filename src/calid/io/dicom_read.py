"""DICOM files to images: what each one shows, where and when, before any pixel is decoded.

Classic files (one image) and enhanced ones (many, with functional groups) become the same
thing: a flat header. Everything that `pydicom` says about a file may quote the patient, so
none of its messages is passed on.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from calid.errors import CalidError, GeometryError, InputError
from calid.io.archive import Member
from calid.io.dicom_fields import number, numbers, quiet, text
from calid.io.dicom_report import LeftOut

__all__ = ["Image", "Scan", "parse", "scan"]

_GROUPS = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "CardiacSynchronizationSequence",
    "TemporalPositionSequence",
    "MRImageFrameTypeSequence",
)
"""Functional groups whose content belongs to one frame of an enhanced file."""

_PHASE = frozenset({"P", "PHASE", "PHASE MAP", "VELOCITY", "REAL", "IMAGINARY"})
"""Image types and components that are not magnitude."""

_NEEDED = (
    ("Rows", 1),
    ("Columns", 1),
    ("PixelSpacing", 2),
    ("ImageOrientationPatient", 6),
    ("ImagePositionPatient", 3),
)

_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture and its multi-frame kinds: screenshots, which need no geometry."""

_DEFLATED = re.compile(rb"\x02\x00\x10\x00UI..1\.2\.840\.10008\.1\.2\.1\.99", re.DOTALL)
"""The transfer syntax of a compressed header."""

_MOST_FRAMES = 10_000
"""Of one file: no film is longer, and a damaged header may claim any number."""

_DAMAGED = "Copy or export the file again."


@dataclass(frozen=True, eq=False)
class Image:
    """One image: a frame of a file.

    Parameters
    ----------
    member, frame
        The file, and the number of the frame in it, from 0.
    multiple
        Whether the file has a frame axis.
    header
        Without pixels; of an enhanced file, with the frame's functional groups lifted.
    matrix
        Rows and columns.
    spacing
        Row and column step in mm.
    axes
        Shape ``(3, 3)``; its columns are the directions of increasing column, row and slice
        in RAS+.
    corner
        Shape ``(3,)``; RAS+ millimetres of the first voxel's centre.
    """

    member: Member
    frame: int
    multiple: bool
    header: Dataset
    matrix: tuple[int, int]
    spacing: tuple[float, float]
    axes: NDArray[np.float64]
    corner: NDArray[np.float64]

    @property
    def series(self) -> int | None:
        """Number of the series, the only name of it that cannot name a person."""
        value = number(self.header, "SeriesNumber")
        return None if value is None else int(value)


@dataclass
class Scan:
    """Everything that was found.

    Parameters
    ----------
    files
        How many were looked at.
    images
        Images with a place in space.
    left_out
        Files that show no slice of a heart, and why.
    """

    files: int
    images: list[Image] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def of(self, series: Sequence[int], path: Path) -> Scan:
        """The images of some series, by number; of all of them if no number is given.

        Raises
        ------
        InputError
            If there is no image of one of them.
        """
        if not series:
            return self
        there = {n for image in self.images if (n := image.series) is not None}
        if absent := sorted(set(series) - there):
            raise InputError(
                path,
                f"There is no image of series {', '.join(map(str, absent))}.",
                f"Series with images: {', '.join(map(str, sorted(there))) or 'none'}.",
            )
        kept = [image for image in self.images if image.series in series]
        others = len(self.images) - len(kept)
        left_out = [LeftOut("of another series", others)] if others else []
        return Scan(self.files, kept, self.left_out + left_out)


def scan(files: Sequence[Member], path: Path) -> Scan:
    """Look at every file.

    Raises
    ------
    InputError
        If a DICOM file is damaged within its header or lacks a field that a slice needs.
    """
    found = Scan(len(files))
    reasons: Counter[str] = Counter()
    seen: dict[str, Member] = {}
    for member in files:
        dataset = parse(member, path)
        if dataset is None:
            reasons["not DICOM"] += 1
        elif reason := _useless(dataset):
            reasons[reason] += 1
        elif _same(seen.setdefault(text(dataset, "SOPInstanceUID"), member), member):
            reasons["an exact copy of another file"] += 1
        else:
            for image in _images(dataset, member, path):
                if isinstance(image, Image):
                    found.images.append(image)
                else:
                    reasons[image] += 1
    found.left_out += [LeftOut(reason, images) for reason, images in reasons.items()]
    return found


def _images(dataset: Dataset, member: Member, path: Path) -> list[Image | str]:
    """Every frame of a file: an image, or the reason why not."""
    out: list[Image | str] = []
    try:
        with quiet():
            for frame, multiple, header in _frames(dataset, member, path):
                reason = _not_magnitude(header)
                out.append(reason or _image(member, frame, multiple, header, path))
    except CalidError:
        raise
    except Exception as error:  # a value that cannot be converted is found out only now
        raise _damaged(member, path) from error
    return out


def parse(member: Member, path: Path, pixels: bool = False) -> Dataset | None:
    """Header of a DICOM file, with its pixels if wanted; none if it is not DICOM.

    Raises
    ------
    InputError
        If it says that it is DICOM and cannot be read as such.
    """
    head = member.read(132)
    marked = head[128:132] == b"DICM"
    # Files without preamble begin with group 8; nothing else is guessed.
    if not marked and head[:2] != b"\x08\x00":
        return None
    content = member.read(-1)
    if _DEFLATED.search(content):  # it would be unpacked whole, however large
        raise InputError(
            path,
            f"{member.label.capitalize()} is a deflated data set, which is not read.",
            "Convert it to Explicit VR Little Endian, for example with dcmconv +te.",
        )
    try:
        with quiet():
            dataset = pydicom.dcmread(
                io.BytesIO(content), stop_before_pixels=not pixels, force=not marked
            )
    except Exception as error:  # damaged files raise anything: struct.error, KeyError, ...
        if not marked:
            return None
        raise _damaged(member, path) from error
    return dataset


def _useless(dataset: Dataset) -> str:
    """Why a file cannot show a slice; empty if it can."""
    kind = text(dataset, "SOPClassUID")
    if "DirectoryRecordSequence" in dataset:
        return "a DICOMDIR, which is not needed"
    if "Rows" not in dataset and "ImagePositionPatient" not in dataset:
        return "DICOM without an image"
    if kind.startswith(_SECONDARY) and "ImagePositionPatient" not in dataset:
        return "a screenshot"
    return "a colour image" if number(dataset, "SamplesPerPixel") not in (None, 1) else ""


def _not_magnitude(header: Dataset) -> str:
    words = {str(word).upper() for word in _listed(header.get("ImageType"))[2:]}
    words |= {str(word).upper() for word in _listed(header.get("FrameType"))[2:]}
    words.add(text(header, "ComplexImageComponent").upper())
    return "not a magnitude image (phase or velocity)" if words & _PHASE else ""


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, MultiValue) else [value]


def _same(first: Member, second: Member) -> bool:
    """Whether two files hold the same bytes."""
    if first is second or first.size != second.size:
        return False
    one, two = (hashlib.sha256(member.read(-1)).digest() for member in (first, second))
    return one == two


def _frames(dataset: Dataset, member: Member, path: Path) -> Iterator[tuple[int, bool, Dataset]]:
    """Number of each frame, whether the file has a frame axis, and a flat header."""
    count = number(dataset, "NumberOfFrames")
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if count is None and groups is None:
        yield 0, False, dataset
        return
    frames = int(count or 0)
    if not 1 <= frames <= _MOST_FRAMES or (groups is not None and len(groups) != frames):
        raise InputError(
            path,
            f"{member.label.capitalize()} claims {frames} frames and describes "
            f"{0 if groups is None else len(groups)}.",
            _DAMAGED,
        )
    for frame in range(frames):
        yield frame, frames > 1, _flat(dataset, frame)


def _flat(dataset: Dataset, frame: int) -> Dataset:
    """The header of one frame: its functional groups lifted to the top level."""
    flat = Dataset()
    many = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    shared, own = (dataset.get(keyword) for keyword in many)
    for tag in dataset.keys() - {Tag(keyword) for keyword in (*many, "NumberOfFrames")}:
        flat[tag] = dataset.get_item(tag)  # as it is in the file: not every value is valid
    flat.ReferencedFrameNumber = frame + 1  # for whoever refers to the source image
    for item in [*(shared or [])[:1], *(own or [])[frame : frame + 1]]:
        for keyword in _GROUPS:
            for inner in item.get(keyword) or []:
                flat.update({element.tag: element for element in inner})
    return flat


def _image(member: Member, frame: int, multiple: bool, header: Dataset, path: Path) -> Image:
    values = {keyword: numbers(header, keyword, count) for keyword, count in _NEEDED}
    label = member.label + (f", frame {frame + 1}" if multiple else "")
    absent = [keyword for keyword, value in values.items() if value is None]
    if absent:
        raise InputError(
            path,
            f"{label.capitalize()} has no valid {' and no '.join(absent)}.",
            "Take it out, or export it again with its full header.",
        )
    rows, columns, spacing, directions, corner = (np.array(v) for v in values.values())
    across, down = directions.reshape(2, 3)
    square = abs(across @ down) < 0.01 and np.allclose(
        np.linalg.norm(directions.reshape(2, 3), axis=1), 1, atol=0.01
    )
    if not square or min(rows[0], columns[0], *spacing) <= 0:
        raise GeometryError(
            path,
            f"{label.capitalize()} has an impossible orientation, matrix or pixel spacing.",
            "Take it out, or export it again.",
        )
    # DICOM's axes point to the left, back and head; RAS+ to the right, front and head.
    to_ras = np.array([-1.0, -1.0, 1.0])
    across, down = across / np.linalg.norm(across), down / np.linalg.norm(down)
    return Image(
        member=member,
        frame=frame,
        multiple=multiple,
        header=header,
        matrix=(int(rows[0]), int(columns[0])),
        spacing=(float(spacing[0]), float(spacing[1])),
        axes=np.stack([across, down, np.cross(across, down)], axis=1) * to_ras[:, None],
        corner=corner * to_ras,
    )


def _damaged(member: Member, path: Path) -> InputError:
    return InputError(path, f"{member.label.capitalize()} is DICOM, but damaged.", _DAMAGED)
