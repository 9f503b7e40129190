"""DICOM files to images: what each one shows, where and when, before any pixel is decoded.

Classic files (one image) and enhanced ones (many, with functional groups) become the same
thing: a flat header. Everything that `pydicom` says about a file may quote the patient, so
none of its messages is passed on. Nor does any name, date, UID, free text or file name reach the
report of what was found: exporters put patients' names into all of these.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset, config
from pydicom.tag import Tag
from pydicom.uid import UID, EnhancedMRImageStorage, MRImageStorage

from calid.errors import CalidError, GeometryError, InputError
from calid.io.dicom_fields import Contrast, number, numbers, part, processing, quiet, text
from calid.io.find import Member, Walk
from calid.words import count

__all__ = ["DicomReport", "Image", "LeftOut", "Slice", "of_series", "parse", "scan"]


@dataclass(frozen=True)
class LeftOut:
    """Files or images that are not in the stack."""

    reason: str
    images: int  # how many
    planes: int | None = None  # at how many places
    frames: int | None = None  # most images at one place
    matrix: tuple[int, int] | None = None  # rows, columns
    pixel_spacing_mm: tuple[float, float] | None = None  # row step, column step
    angle_deg: float | None = None  # between their planes and those of the stack, 0 to 90
    series: tuple[int, ...] = ()  # numbers


@dataclass(frozen=True)
class Slice:
    """A slice of the stack."""

    position_mm: float  # along the normal, 0 for the first slice
    frames: int
    series: tuple[int, ...]  # numbers


@dataclass
class DicomReport:
    """What was found, kept and left out; every step of the search adds its own.

    Parameters
    ----------
    files, images
        Files looked at; images in them that have a place in space.
    kept
        Slices of the stack in the order of positions, before any problem is resolved.
    left_out
        Everything else, and why.
    odd
        Slices that do not fit the stack, which would have a hole without them; not in `facts`.
    problems, warnings, decision
        Sentences: why the input cannot be read as it is; what was decided on the user's behalf;
        which images are the short axis and why, and why others are not.
    time_from
        Which field ordered the frames; empty for a stack without frames.
    time_spread_s
        Largest difference between slices in the time of the same phase, in seconds.
    """

    files: int
    images: int = 0
    kept: list[Slice] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    odd: list[LeftOut] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    decision: list[str] = field(default_factory=list)
    time_from: str = ""
    time_spread_s: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Everything, for JSON."""
        facts = asdict(self)
        del facts["odd"]
        return facts


_GROUPS = (
    *("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"),
    *("PixelValueTransformationSequence", "FrameContentSequence"),
    *("CardiacSynchronizationSequence", "TemporalPositionSequence", "MRImageFrameTypeSequence"),
    *("MRTimingAndRelatedParametersSequence", "MREchoSequence", "MRModifierSequence"),
)
"""Functional groups whose content belongs to one frame of an enhanced file."""

_NEEDED = {
    "Rows": 1,
    "Columns": 1,
    "PixelSpacing": 2,
    "ImageOrientationPatient": 6,
    "ImagePositionPatient": 3,
}
"""Fields of every slice, and how many numbers they hold."""

_MR = (MRImageStorage, EnhancedMRImageStorage, "1.2.840.10008.5.1.4.1.1.4.4")
"""SOP classes that are read; the last is that of classic images put into one enhanced file."""

_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture and its multi-frame kinds: screenshots, whatever geometry they claim."""

_PART = "not a magnitude image (phase or velocity, real or imaginary part)"

_PIXELS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
"""Tag of pixel data in either byte order."""

_DEFLATED = re.compile(rb"\x02\x00\x10\x00UI..1\.2\.840\.10008\.1\.2\.1\.99", re.DOTALL)
"""The transfer syntax of a compressed header."""

_MOST_FRAMES = 10_000
"""Of one file: no film is longer, and a damaged header may claim any number."""

_DAMAGED = "Copy or export the file again."


@dataclass(frozen=True, eq=False)
class Image:
    """One image: a frame of a file.

    ``axes`` has the shape ``(3, 3)``: its columns are the directions of increasing column, row
    and slice in RAS+. ``corner`` ``(3,)`` is the first voxel's centre in RAS+ millimetres.
    """

    member: Member
    frame: int  # in the file, from 0
    multiple: bool  # whether the file has a frame axis
    header: Dataset  # without pixels; with the frame's functional groups lifted
    matrix: tuple[int, int]  # rows, columns
    spacing: tuple[float, float]  # row step, column step in mm
    axes: NDArray[np.float64]
    corner: NDArray[np.float64]

    @cached_property
    def series(self) -> int | None:
        """Number of the series, the only name of it that cannot name a person."""
        value = number(self.header, "SeriesNumber")
        return None if value is None else int(value)

    @cached_property
    def contrast(self) -> Contrast:
        """What tells it from images of another sequence or preparation."""
        return Contrast.of(self.header)

    @cached_property
    def processing(self) -> int:
        """How far it is from what was acquired, 0 to 3."""
        return processing(self.header)

    @cached_property
    def identity(self) -> tuple[object, ...]:
        """What two copies of one image share, beside the UID: place, time, number."""
        fields = ("InstanceNumber", "TriggerTime", "TemporalPositionIdentifier", "EchoTime")
        place = np.round([*self.corner, *self.axes.ravel(), *self.spacing], 3)
        found = (number(self.header, field) for field in fields)
        return (self.processing, *self.matrix, *place, *found)


def of_series(
    images: Sequence[Image], series: Sequence[int], report: DicomReport, path: Path
) -> Sequence[Image]:
    """The images of some series, by number (an `InputError` if there is none); all by default."""
    if not series:
        return images
    there = {n for image in images if (n := image.series) is not None}
    if absent := sorted(set(series) - there):
        raise InputError(
            path,
            f"There is no image of series {', '.join(map(str, absent))}.",
            f"Series with images: {', '.join(map(str, sorted(there))) or 'none'}.",
        )
    kept = [image for image in images if image.series in series]
    if others := len(images) - len(kept):
        report.left_out.append(LeftOut("of another series", others))
    return kept


def scan(files: Sequence[Member], path: Path, walk: Walk, report: DicomReport) -> list[Image]:
    """Images with a place in space; the report says why other files show no slice of a heart.

    An `InputError` if a DICOM file is damaged within its header or lacks a field of `_NEEDED`.
    """
    found: list[Image] = []
    reasons = Counter(walk.left_out)
    seen: dict[str, Sequence[object]] = {}
    contradictions = 0
    for member in files:
        dataset = parse(member, path)
        if dataset is None:
            reasons["not DICOM"] += 1
        elif reason := _useless(dataset):
            reasons[reason] += 1
        else:
            try:
                with quiet():
                    # Of what is not magnitude only its place in the file is kept.
                    images = [
                        None if part(header) else _image(member, frame, multiple, header, path)
                        for frame, multiple, header in _frames(dataset, member, path)
                    ]
            except CalidError:
                raise
            except Exception as error:  # a value that cannot be converted is found out only now
                raise _damaged(member, path) from error
            if not dataset.has_pixels:  # after its geometry, which tells a file that is cut off
                reasons["an image without pixels"] += 1
                continue
            identity = [None if image is None else image.identity for image in images]
            uid = text(dataset, "SOPInstanceUID")
            if uid and seen.setdefault(uid, identity) is not identity:
                if seen[uid] == identity:
                    reasons["another copy of an image (by its SOPInstanceUID)"] += 1
                    continue
                contradictions += 1
            found += (kept := [image for image in images if image is not None])
            if len(kept) < len(images):
                reasons[_PART] += len(images) - len(kept)
    for reason, many in reasons.items():
        report.left_out.append(LeftOut(reason, many))
        what = "item" if reason in walk.left_out else "image" if reason == _PART else "file"
        report.warnings.append(f"{_are(many, what)} left out: {reason}")
    if walk.links:
        report.warnings.append(f"{_are(walk.links, 'link')} followed out of the folder")
    if contradictions:
        report.warnings.append(
            f"{_are(contradictions, 'file')} of the SOPInstanceUID of another, yet of another "
            "place, time or number, and taken for images of their own"
        )
    return found


def _are(many: int, what: str) -> str:
    return f"{count(many, what)} {'is' if many == 1 else 'are'}"


def parse(member: Member, path: Path, pixels: bool = False) -> Dataset | None:
    """Header of a DICOM file, with its pixels if wanted; none if it is not DICOM.

    An `InputError` if it says that it is and cannot be read as such.
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
    stream = io.BytesIO(content)
    try:
        with quiet():
            dataset = pydicom.dcmread(stream, stop_before_pixels=not pixels, force=not marked)
    except Exception as error:  # damaged files raise anything: struct.error, KeyError, ...
        if not marked:
            return None
        raise _damaged(member, path) from error
    if not pixels:
        dataset.has_pixels = stream.read(4) in _PIXELS
    return dataset


def _useless(dataset: Dataset) -> str:
    """Why a file cannot show a slice, by its SOP class and modality; empty if it can."""
    if "DirectoryRecordSequence" in dataset:
        return "a DICOMDIR, which is not needed"
    said = text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")
    kind = UID(said, validation_mode=config.IGNORE)
    modality = text(dataset, "Modality").upper()
    if kind.startswith(_SECONDARY):
        return "a screenshot (secondary capture)"
    if "Rows" not in dataset and "ImagePositionPatient" not in dataset:
        return "DICOM without an image"
    if kind and kind not in _MR:
        # Only names from the standard: a UID of somebody's own may name them.
        name = "" if kind.name == kind else f" ({kind.name.removesuffix(' Storage')})"
        return f"not an MR image{name}"
    if modality != "MR" and (modality or not kind):
        return "not an MR image (by its modality)"
    return "a colour image" if number(dataset, "SamplesPerPixel") not in (None, 1) else ""


def _frames(dataset: Dataset, member: Member, path: Path) -> Iterator[tuple[int, bool, Dataset]]:
    """Number of each frame, whether the file has a frame axis, and a flat header."""
    said = number(dataset, "NumberOfFrames")
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if said is None and groups is None:
        yield 0, False, dataset
        return
    frames, described = int(said or 0), 0 if groups is None else len(groups)
    if not 1 <= frames <= _MOST_FRAMES or (groups is not None and described != frames):
        raise InputError(
            path,
            f"{member.label.capitalize()} claims {frames} frames and describes {described}.",
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
    items = [*(shared or [])[:1], *(own or [])[frame : frame + 1]]
    for item in items:
        for keyword in _GROUPS:
            for inner in item.get(keyword) or []:
                flat.update({element.tag: element for element in inner})
    # Philips puts the classic fields of a frame into a private sequence: they fill what is missing.
    for group in (item[tag] for item in items for tag in sorted(item.keys()) if tag.is_private):
        for inner in group.value if group.VR == "SQ" else ():
            for element in (e for e in inner if not e.tag.is_private):
                flat.setdefault(element.tag, element)
    return flat


def _image(member: Member, frame: int, multiple: bool, header: Dataset, path: Path) -> Image:
    values = {keyword: numbers(header, keyword, count) for keyword, count in _NEEDED.items()}
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
    lengths = np.linalg.norm([across, down], axis=1)
    square = abs(across @ down) < 0.01 and np.allclose(lengths, 1, atol=0.01)
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
        *(member, frame, multiple, header),
        matrix=(int(rows[0]), int(columns[0])),
        spacing=(float(spacing[0]), float(spacing[1])),
        axes=np.stack([across, down, np.cross(across, down)], axis=1) * to_ras[:, None],
        corner=corner * to_ras,
    )


def _damaged(member: Member, path: Path) -> InputError:
    return InputError(path, f"{member.label.capitalize()} is DICOM, but damaged.", _DAMAGED)
