"""Read standard and vendor fields of a DICOM header, whatever they hold.

Real headers hold values that the standard does not allow. A needed value that cannot be read
counts as absent; all others are ignored. Enhanced files are read as classic ones: their
functional groups have been lifted (`calid.io.dicom_images`).
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, DT, TM

__all__ = [
    "TRIGGERS",
    "Contrast",
    "first_number",
    "moment",
    "number",
    "numbers",
    "part",
    "processing",
    "quiet",
    "text",
]

TRIGGERS = ("TriggerTime", "NominalCardiacTriggerDelayTime", "ActualCardiacTriggerDelayTime")
"""Fields of the time after the R wave, in ms."""

T = TypeVar("T")
U = TypeVar("U")

_SAME_CONTRAST = 0.25
"""Share by which the echo or inversion times of one contrast may differ from slice to slice."""

_PARTS = re.compile(r"(CR|[PRI])(_\w+)?|PHASE|PHASE[ _]MAP|VELOCITY|VELOCITY[ _]MAP|REAL|IMAGINARY")
"""Image types and components that are not magnitude, Philips' short ones among them."""

_TYPES = (
    ("a map", re.compile(r"(.*[ _])?MAP|QUANTITY|ECV|ADC")),
    ("a projection", re.compile(r"MIP.*|MAX_IP|MIN_IP|PROJECTION IMAGE")),
    ("a localizer", re.compile(r"LOCALIZER")),
    ("perfusion", re.compile(r"PERFUSION")),
    ("flow", re.compile(r"FLOW_ENCODED|PHASE CONTRAST M|(M_)?PCA")),
    ("tagging", re.compile(r"TAGGING")),
    ("diffusion", re.compile(r"DIFFUSION")),
    ("inversion recovery", re.compile(r"STIR|FLUID_ATTENUATED|(M_)?IR")),
)
"""Contrasts, with patterns for whole values of image type and acquisition contrast."""

_PREPARATIONS = (
    ("InversionRecovery", "inversion recovery"),
    ("SaturationRecovery", "saturation recovery"),
    ("PhaseContrast", "flow"),
    ("T2Preparation", "T2 preparation"),
    ("BloodSignalNulling", "black blood"),
)
"""Fields of enhanced files that say YES to a preparation."""

_PHILIPS = "Philips Imaging DD 001"
_SIEMENS = "SIEMENS MR SDI 02"


@dataclass(frozen=True)
class Contrast:
    """What an image shows, as far as its header tells.

    Contrast agents are no part of it: a film may be acquired after one was given. Nor are flip
    angles: scanners lower them slice by slice to spare the patient heat.
    """

    kind: str  # what sets it apart from a plain image, as cines are; empty for those
    sequence: str  # its name without the part that varies from slice to slice
    prepared: bool | None  # whether the magnetisation was prepared; none if unknown
    echo: float | None  # time in ms
    inversion: float  # time in ms; 0 without a preparation

    @classmethod
    def of(cls, header: Dataset) -> Contrast:
        """Read the fields of the standard, of Philips, GE and Siemens."""
        sequence = next(filter(None, _sequences(header)), "")
        variant = _words(header, "SequenceVariant")
        return cls(
            kind=_kind(header, sequence),
            sequence=sequence.partition("_")[0],
            prepared="MP" in variant if variant else None,
            echo=first_number(header, "EchoTime", "EffectiveEchoTime"),
            inversion=_inversion(header),
        )

    def fits(self, other: Contrast) -> bool:
        """Whether two images can belong to one film; a missing value fits any other."""
        return (
            self.kind == other.kind
            and ("" in (self.sequence, other.sequence) or self.sequence == other.sequence)
            and (None in (self.prepared, other.prepared) or self.prepared == other.prepared)
            and (self.echo is None or other.echo is None or _close(self.echo, other.echo))
            and _close(self.inversion, other.inversion)
        )


def _kind(header: Dataset, sequence: str) -> str:
    types = [*_image_type(header)[2:], *_words(header, "AcquisitionContrast")]
    types += _private(header, 0x0021, _SIEMENS, 0x75)[2:]
    for kind, pattern in _TYPES:
        if any(pattern.fullmatch(word) for word in types):
            return kind
    for keyword, kind in _PREPARATIONS:
        if "YES" in _words(header, keyword):
            return kind
    if set(_words(header, "Tagging")) - {"NONE"}:
        return "tagging"
    prepulse = _private(header, 0x2001, _PHILIPS, 0x1C)
    inverted = "IR" in _words(header, "ScanningSequence") or "INV" in prepulse
    if inverted or _inversion(header) > 0 or "MDE" in sequence:
        return "inversion recovery"
    if "SAT" in prepulse:
        return "saturation recovery"
    return "flow" if re.search(r"_V\d", sequence) else ""


def _sequences(header: Dataset) -> Iterator[str]:
    """Names of the pulse sequence, the standard's first."""
    for keyword in ("SequenceName", "PulseSequenceName"):
        yield text(header, keyword).strip().upper()
    for group, creator, element in (
        (0x0021, _SIEMENS, 0x77),
        (0x0019, "GEMS_ACQU_01", 0x9E),
        (0x0019, "GEMS_ACQU_01", 0x9C),
        (0x2001, _PHILIPS, 0x20),
    ):
        yield "".join(_private(header, group, creator, element)[:1])


def _inversion(header: Dataset) -> float:
    """Inversion time in ms. Without a preparation there is none, which some write as 0."""
    philips = [*_private(header, 0x2001, _PHILIPS, 0x84), *_private(header, 0x2001, _PHILIPS, 0x1B)]
    for value in (*_words(header, "InversionTime"), *_words(header, "InversionTimes"), *philips):
        with suppress(ValueError):
            if math.isfinite(found := float(value)) and found > 0:
                return found
    return 0.0


def part(header: Dataset) -> bool:
    """Whether an image is phase, velocity, real or imaginary, not magnitude."""
    said = [*_image_type(header)[2:], *_words(header, "ComplexImageComponent")]
    said += _private(header, 0x2005, "Philips MR Imaging DD 001", 0x11)
    said += _private(header, 0x0021, _SIEMENS, 0x75)[2:]
    ge = _private(header, 0x0043, "GEMS_PARM_01", 0x2F)[:1]
    return any(map(_PARTS.fullmatch, said)) or ge in (["1"], ["2"], ["3"])


def processing(header: Dataset) -> int:
    """How far an image is from what was acquired: 0 for ORIGINAL PRIMARY, up to 3."""
    first, second = (*_image_type(header), "", "")[:2]
    burnt = "YES" in _words(header, "BurnedInAnnotation")
    return (first == "DERIVED") + (second == "SECONDARY") + burnt


def _image_type(header: Dataset) -> list[str]:
    """Of the frame, if it has one of its own; that of a file may be MIXED."""
    return _words(header, "FrameType") or _words(header, "ImageType")


def moment(header: Dataset) -> float | None:
    """Seconds from the year 1 to the acquisition; none if the header does not tell."""
    for keyword in ("FrameAcquisitionDateTime", "AcquisitionDateTime"):
        with suppress(Exception):  # as in `_tried`
            return _seconds(DT(text(header, keyword)))
    with suppress(Exception):
        day = DA(text(header, "AcquisitionDate") or "00010101")
        return _seconds(datetime.combine(day, TM(text(header, "AcquisitionTime"))))
    return None


def _seconds(time: datetime) -> float:
    return (time - datetime(1, 1, 1, tzinfo=time.tzinfo)).total_seconds()


def number(header: Dataset, keyword: str) -> float | None:
    """One finite number of a header, or none."""
    found = numbers(header, keyword, 1)
    return None if found is None else found[0]


def first_number(header: Dataset, *keywords: str) -> float | None:
    """The first of several fields that holds one finite number."""
    return next((v for k in keywords if (v := number(header, k)) is not None), None)


def numbers(header: Dataset, keyword: str, count: int) -> list[float] | None:
    """``count`` finite numbers of a header, or none."""

    def read() -> list[float]:
        value = header[keyword].value
        return [float(v) for v in ([value] if isinstance(value, str | int | float) else value)]

    found = _tried(read, [])
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def text(header: Dataset, keyword: str) -> str:
    """A field as text; empty if it is absent or cannot be read."""
    return _tried(lambda: str(header.get(keyword, "")), "")


def _words(header: Dataset, keyword: str) -> list[str]:
    """The values of a field in capitals."""
    return _tried(lambda: _capitals(header.get(keyword)), [])


def _private(header: Dataset, group: int, creator: str, element: int) -> list[str]:
    """The values of a vendor's field in capitals, also where its type is not said."""
    return _tried(lambda: _capitals(header.private_block(group, creator)[element].value), [])


def _tried(read: Callable[[], T], otherwise: U) -> T | U:
    """What a field holds, if it is there and of the right kind: pydicom raises many things."""
    try:
        with quiet():
            return read()
    except Exception:
        return otherwise


def _capitals(value: object) -> list[str]:
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="ignore").strip("\0").split("\\")
    many = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [word for v in many if v is not None and (word := str(v).strip().upper())]


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME_CONTRAST * max(abs(one), abs(other))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and logs of pydicom and its decoders, which quote values."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
