"""DICOM in: a folder, a zip or one file becomes the short-axis stack that is in it.

A stack is found by geometry (`calid.io.dicom_group`) and time (`calid.io.dicom_time`); names
of series and the order of instance numbers play no part. Slices lie where ImagePositionPatient
says, also when gaps are unequal.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from calid.errors import CalidError, CalidWarning, GeometryError, InputError, UsageError
from calid.geometry.dense_grid import usual_gap
from calid.io.archive import Limits, members
from calid.io.dicom_choose import Choice, Odd, choose, unshifted
from calid.io.dicom_fields import number, text
from calid.io.dicom_group import Plane, in_words
from calid.io.dicom_pixels import check_budget, read_pixels
from calid.io.dicom_read import Image, Scan, scan
from calid.io.dicom_report import DicomReport, LeftOut, Slice
from calid.io.dicom_takes import Takes, best_takes
from calid.io.dicom_time import Film, film
from calid.stack import SliceStack
from calid.words import count, span

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["DicomStack", "Exam", "OddSlices", "open_dicom", "read_dicom"]

OddSlices = Literal["refuse", "leave-out"]
"""What to do with slices that do not fit the others."""

OPTION = "--odd-slices"
"""Where users choose it."""

_UNEVEN = 0.1
"""mm by which gaps may differ before it is said."""

_OVERLAP = 2.05
"""Slices of this many gaps' thickness would overlap more than any scanner's do."""


@dataclass(frozen=True, eq=False)
class DicomStack:
    """A stack, and what of its source a NIfTI file could not hold.

    Parameters
    ----------
    stack
        The short-axis slices.
    headers
        Of every kept image, without pixels: ``headers[frame][slice]`` belongs to
        ``stack.data[frame, slice]``. Frames of enhanced (multi-frame) files are given the
        geometry, time and rescaling of their functional groups at the top level. They hold
        everything that the files hold, the patient's name included.
    report
        What was found, kept and left out; names nobody.
    """

    stack: SliceStack
    headers: tuple[tuple[Dataset, ...], ...]
    report: DicomReport


@dataclass(frozen=True, eq=False)
class Exam:
    """What was found in an input, before any pixel is decoded.

    Parameters
    ----------
    path
        The input.
    report
        What was found.
    error
        Why it cannot be read; none if it can.
    """

    path: Path
    report: DicomReport
    error: CalidError | None
    _film: Film | None
    _thickness: float
    _max_bytes: int

    def read(self) -> DicomStack:
        """Decode the pixels of the stack.

        Raises
        ------
        CalidError
            ``error``, or what `read_dicom` lists.
        """
        if self.error is not None:
            raise self.error
        cine = self._film
        assert cine is not None
        slices = cine.images
        check_budget([image for frames in slices for image in frames], self.path, self._max_bytes)
        data, intensity = read_pixels(slices, self.path)
        for note in self.report.warnings:
            warnings.warn(f"{self.path}: {note}", CalidWarning, stacklevel=3)
        stack = SliceStack(
            data=data,
            affine=_affine(slices[0][0], cine.heights),
            positions=cine.heights - cine.heights[0],
            thickness=self._thickness,
            frame_times=cine.times,
            intensity=intensity,
            rank=4 if len(cine.times) > 1 else 3,
            source=str(self.path),
        )
        headers = tuple(
            tuple(image.header for image in frame) for frame in zip(*slices, strict=True)
        )
        return DicomStack(stack, headers, self.report)


def read_dicom(
    path: str | os.PathLike[str],
    *,
    odd_slices: OddSlices = "refuse",
    series: Sequence[int] = (),
    thickness: float | None = None,
    max_bytes: int = Limits.total,
) -> DicomStack:
    """Read the short-axis stack of an exam, still or cine.

    Parameters
    ----------
    path
        A folder, searched recursively; a zip; or one file.
    odd_slices
        Slices that do not fit the others (turned, shifted, of another matrix, acquired twice,
        or with another number of frames) are an error, or are left out with a warning.
    series
        Numbers of the series to look at; by default all of them.
    thickness
        Slice thickness in mm. By default that of the headers.
    max_bytes
        Larger inputs are not read.

    Returns
    -------
    DicomStack
        The stack in stored values, the headers of its images, and a report.

    Raises
    ------
    InputError
        If there is no DICOM image, a file is damaged, or the input is not safe to read.
    GeometryError
        If no stack is found, or slices are odd.
    IntensityError
        If images do not hold grey values.
    UsageError
        If an option has an impossible value.

    Warns
    -----
    CalidWarning
        If views are left out, gaps are unequal, or something is missing in the headers.
    """
    with open_dicom(
        path, odd_slices=odd_slices, series=series, thickness=thickness, max_bytes=max_bytes
    ) as exam:
        return exam.read()


@contextmanager
def open_dicom(
    path: str | os.PathLike[str],
    *,
    odd_slices: OddSlices = "refuse",
    series: Sequence[int] = (),
    thickness: float | None = None,
    max_bytes: int = Limits.total,
) -> Iterator[Exam]:
    """Look at an input and yield what is in it; parameters as `read_dicom`.

    Raises
    ------
    InputError
        If a file is damaged, or the input is not safe to read.
    UsageError
        If an option has an impossible value.
    """
    path = Path(path)
    if odd_slices not in get_args(OddSlices):
        allowed = " or ".join(get_args(OddSlices))
        raise UsageError(f"{OPTION} {odd_slices}", "There is no such choice.", f"Use {allowed}.")
    if thickness is not None and not (math.isfinite(thickness) and thickness > 0):
        raise UsageError(f"thickness {thickness}", "A slice has a positive thickness.", "Use mm.")
    with members(path, Limits(total=max_bytes)) as (files, walk):
        found = scan(files, path, walk).of(series, path)
        yield _survey(found, path, odd_slices, thickness, max_bytes)


def _affine(first: Image, heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxel indices of the first slice to RAS+ millimetres, with the mean step."""
    affine = np.eye(4)
    row, column = first.spacing
    step = (heights[-1] - heights[0]) / (len(heights) - 1)
    affine[:3, :3] = first.axes * [column, row, step]
    affine[:3, 3] = first.corner
    return affine


def _survey(
    found: Scan, path: Path, odd_slices: OddSlices, thickness: float | None, max_bytes: int
) -> Exam:
    """From images to slices in order, with everything that has to be said about it."""
    choice = choose(found.images)
    odd, notes, planes = list(choice.odd), [*found.notes, *choice.notes], choice.planes
    takes = best_takes(planes) if planes else Takes([])
    notes += takes.notes
    left_out = [*found.left_out, *choice.left_out, *takes.left_out]
    cine: Film | None = None
    if planes:
        planes, shifted, shift = unshifted(takes.planes)
        odd += shifted
        if shift > _UNEVEN:
            notes.append(f"slices are shifted in-plane by up to {shift:.2g} mm, which is ignored")
    if planes:
        cine = film(planes)
        odd += cine.odd
        notes += cine.notes
    error = _problem(found, choice, takes, cine, path)
    sentences = [f"{o.what}." for o in odd]
    if odd and odd_slices == "leave-out":
        left_out += [LeftOut(o.what, len(o.images)) for o in odd]
        notes += [f"left out: {o.what}" for o in odd]
        sentences = []
    elif odd and error is None:
        error = _odd_error(odd, path)
    if error is not None and not sentences:
        sentences = [error.rule]
    kept: list[Slice] = []
    own = 0.0
    if cine is not None and len(cine.heights):
        own, more = _thickness(cine, thickness)
        notes += [
            *more,
            *_said_spacing(cine, own),
            *_gaps(cine.heights),
            *_frames_of_reference(cine),
        ]
        kept = [
            Slice(round(float(h - cine.heights[0]), 4), len(images), Plane(h, tuple(images)).series)
            for h, images in zip(cine.heights, cine.images, strict=True)
        ]
    report = DicomReport(
        files=found.files,
        images=len(found.images),
        kept=kept,
        left_out=left_out,
        problems=sentences,
        warnings=notes,
        decision=choice.why,
        time_from=cine.clock if cine else "",
        time_spread_s=cine.spread if cine else 0.0,
    )
    return Exam(path, report, error, cine, own, max_bytes)


def _problem(
    found: Scan, choice: Choice, takes: Takes, cine: Film | None, path: Path
) -> CalidError | None:
    """Why there is no stack, if there is none."""
    if not found.images:
        reasons = "; ".join(f"{left.images} {left.reason}" for left in found.left_out)
        return InputError(
            path,
            f"There is no DICOM slice in {count(found.files, 'file')}"
            f"{f' ({reasons})' if reasons else ''}.",
            "Give the folder, zip or file of a short-axis series.",
        )
    studies = {text(i.header, "StudyInstanceUID") for i in found.images}
    people = {text(i.header, "PatientID") for i in found.images}
    if len(studies) > 1 or len(people) > 1:
        return InputError(
            path,
            f"The images are of {max(len(studies), len(people))} exams.",
            "Give the folder of one exam.",
        )
    if choice.rivals:
        sizes = span(len(group.planes) for group in choice.rivals)
        return _several(
            f"{sizes} slices",
            list(map(str, choice.rivals)),
            [g.series for g in choice.rivals],
            path,
        )
    if takes.twice:
        return _several(
            f"{len(choice.planes)} slices", list(map(in_words, takes.twice)), takes.twice, path
        )
    if cine is None or len(cine.heights) < 2:
        return GeometryError(
            path,
            "Interpolation needs at least 2 parallel slices at different places, and fewer fit "
            "together here.",
            "Give the whole short-axis stack; calid inspect lists what was found.",
        )
    return None


def _several(
    what: str, stacks: Sequence[str], series: Sequence[Sequence[int]], path: Path
) -> GeometryError:
    """Ask which of several stacks is meant, and say how to answer."""
    many = "two" if len(stacks) == 2 else str(len(stacks))
    options = [f"--series {' '.join(map(str, numbers))}" for numbers in series]
    remedy = f"Choose with {', or '.join(options)}."
    every = [number for numbers in series for number in numbers]
    if len(set(every)) < len(every) or not all(series):
        remedy = "Give the folder of one of them, or choose with --series where numbers differ."
    return GeometryError(
        path,
        f"There are {many} stacks of {what}, and nothing says which one is meant: "
        f"{'; '.join(stacks)}.",
        f"{remedy} calid inspect lists everything.",
    )


def _odd_error(odd: Sequence[Odd], path: Path) -> GeometryError:
    first = ". ".join(o.what for o in odd[:3])
    more = f" And {len(odd) - 3} more." if len(odd) > 3 else ""
    return GeometryError(
        path,
        f"{first}.{more}",
        f"Take out what does not belong, or leave such slices out with {OPTION} leave-out; "
        "calid inspect lists everything.",
    )


def _thickness(cine: Film, given: float | None) -> tuple[float, list[str]]:
    usual = usual_gap(cine.heights) if len(cine.heights) > 1 else 1.0
    if given is not None:
        return given, []
    found = [number(images[0].header, "SliceThickness") for images in cine.images]
    known = [t for t in found if t is not None and t > 0]
    if len(known) < len(found):
        return usual, ["slice thickness is missing; slices are taken to touch"]
    middle = float(np.median(known))
    if middle > _OVERLAP * usual:
        return usual, [
            f"SliceThickness says {middle:.4g} mm, yet slices are {usual:.4g} mm apart; "
            f"{usual:.4g} mm is used"
        ]
    if max(known) > 1.01 * min(known):
        return middle, [f"slices are {span(known)} mm thick; {middle:.4g} mm is used"]
    return middle, []


def _said_spacing(cine: Film, thickness: float) -> list[str]:
    """Whether the headers' distance of slices is another than that of their positions.

    Some write the space that is left between two slices instead.
    """
    said = {number(images[0].header, "SpacingBetweenSlices") for images in cine.images}
    if len(cine.heights) < 2 or len(said) > 1 or (one := said.pop()) is None:
        return []
    usual = usual_gap(cine.heights)
    if min(abs(abs(one) - usual), abs(abs(one) + thickness - usual)) <= max(_UNEVEN, 0.01 * usual):
        return []
    return [
        f"SpacingBetweenSlices says {abs(one):.4g} mm, yet slices are {usual:.4g} mm apart by "
        "their positions, which count"
    ]


def _gaps(heights: NDArray[np.float64]) -> list[str]:
    gaps = np.diff(heights)
    if len(gaps) < 2 or np.ptp(gaps) <= _UNEVEN:
        return []
    missing = " Is a slice missing?" if gaps.max() > 1.5 * gaps.min() else ""
    return [f"gaps between slices are {span(gaps)} mm.{missing}"]


def _frames_of_reference(cine: Film) -> list[str]:
    uids = {text(images[0].header, "FrameOfReferenceUID") for images in cine.images}
    if len(uids) == 1:
        return []
    return [f"slices have {len(uids)} frames of reference: the patient may have moved between them"]
