"""What was found in an input, in words and numbers that name nobody.

Only the fields listed here leave an input: no name, no date, no UID, no free text of a header
and no file name within a folder or zip, where exporters put all of these.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["DicomReport", "LeftOut", "Slice"]


@dataclass(frozen=True)
class LeftOut:
    """Files or images that are not in the stack.

    Parameters
    ----------
    reason
        Why, for the user.
    images
        How many.
    planes
        At how many places; none if they have no place.
    frames
        Most images at one place.
    matrix
        Rows and columns.
    pixel_spacing_mm
        Row and column step.
    angle_deg
        Between their planes and those of the stack, 0 to 90.
    series
        Series numbers.
    """

    reason: str
    images: int
    planes: int | None = None
    frames: int | None = None
    matrix: tuple[int, int] | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    angle_deg: float | None = None
    series: tuple[int, ...] = ()


@dataclass(frozen=True)
class Slice:
    """A slice of the stack.

    Parameters
    ----------
    position_mm
        Along the normal, 0 for the first slice.
    frames
        Images at this place.
    series
        Series numbers.
    """

    position_mm: float
    frames: int
    series: tuple[int, ...]


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
    problems
        Why the input cannot be read as it is: sentences. Empty if it can.
    warnings
        What was decided on the user's behalf.
    decision
        Which images are the short axis and why, and why others are not: sentences.
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
