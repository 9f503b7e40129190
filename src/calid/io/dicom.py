"""DICOM in: a folder, a zip or one file becomes the short-axis stack that is in it.

A stack is found by geometry (`calid.io.dicom_stack`) and time (`calid.io.dicom_phases`); names
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

from calid.errors import CalidError, CalidWarning, GeometryError, InputError, UsageError
from calid.geometry.dense_grid import usual_gap
from calid.io.dicom_fields import number, text
from calid.io.dicom_images import DicomReport, Image, LeftOut, Slice, of_series, scan
from calid.io.dicom_phases import Cine, best_takes, film
from calid.io.dicom_pixels import read_pixels
from calid.io.dicom_stack import TOLD, choose, in_words, numbers_of, unshifted
from calid.io.find import Limits, members
from calid.stack import SliceStack
from calid.words import count, span

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["DicomStack", "Exam", "OddSlices", "open_dicom", "read_dicom"]

OddSlices = Literal["refuse", "leave-out"]
"""What to do with slices that do not fit the others."""

_OVERLAP = 2.05
"""Slices of this many gaps' thickness would overlap more than any scanner's do."""


@dataclass(frozen=True, eq=False)
class DicomStack:
    """A stack, and what of its source a NIfTI file could not hold.

    ``headers[frame][slice]``, without pixels, belongs to ``stack.data[frame, slice]``. Frames of
    enhanced (multi-frame) files are given the geometry, time and rescaling of their functional
    groups at the top level. Headers hold everything that the files hold, the patient's name
    included; the report names nobody.
    """

    stack: SliceStack
    headers: tuple[tuple[Dataset, ...], ...]
    report: DicomReport


@dataclass(eq=False)
class Exam:
    """What was found in an input, before any pixel is decoded; ``error`` says why it cannot be."""

    path: Path
    report: DicomReport
    max_bytes: int
    error: CalidError | None = None
    film: Cine | None = None
    thickness: float = 0.0

    def read(self) -> DicomStack:
        """Decode the pixels of the stack.

        Raises
        ------
        CalidError
            ``error``, or what `read_dicom` lists.
        """
        if self.error is not None:
            raise self.error
        cine = self.film
        assert cine is not None
        slices = cine.images
        data, intensity = read_pixels(slices, self.path, self.max_bytes, cine.shares)
        for note in self.report.warnings:
            warnings.warn(f"{self.path}: {note}", CalidWarning, stacklevel=3)
        first = slices[0][0]
        (row, column), step = first.spacing, float(np.ptp(cine.heights)) / (len(cine.heights) - 1)
        affine = np.eye(4)
        affine[:3, :3] = first.axes * [column, row, step]
        affine[:3, 3] = first.corner
        stack = SliceStack(
            data=data,
            affine=affine,
            positions=cine.heights - cine.heights[0],
            thickness=self.thickness,
            frame_times=cine.times,
            intensity=intensity,
            rank=4 if len(cine.times) > 1 else 3,
            source=str(self.path),
            cycle=cine.cycle,
            resampled={number: len(slices[number]) for number in cine.shares},
        )
        # A resampled frame gets the header of the acquired frame with the largest share.
        shown = [
            [own[i] for i in cine.shares[number].argmax(1)] if number in cine.shares else own
            for number, own in enumerate(slices)
        ]
        headers = tuple(tuple(i.header for i in frame) for frame in zip(*shown, strict=True))
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
        or with another number of frames that cannot be resampled by their trigger times) are an
        error, or are left out with a warning.
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
        If views are left out, gaps are unequal, slices are resampled in time, or something is
        missing in the headers.
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
    """Look at an input and yield what is in it; parameters and errors as `read_dicom`."""
    path = Path(path)
    if odd_slices not in get_args(OddSlices):
        allowed = " or ".join(get_args(OddSlices))
        raise UsageError(
            f"--odd-slices {odd_slices}", "There is no such choice.", f"Use {allowed}."
        )
    if thickness is not None and not (math.isfinite(thickness) and thickness > 0):
        raise UsageError(f"thickness {thickness}", "A slice has a positive thickness.", "Use mm.")
    with members(path, Limits(total=max_bytes)) as (files, walk):
        report = DicomReport(len(files))
        exam = Exam(path, report, max_bytes)
        images = of_series(scan(files, path, walk, report), series, report, path)
        exam.film, exam.error = _find(images, report, path)
        if report.odd and odd_slices == "leave-out":
            report.left_out += report.odd
            report.warnings += [f"left out: {odd.reason}" for odd in report.odd]
        elif report.odd:
            report.problems = [f"{odd.reason}." for odd in report.odd]
            exam.error = exam.error or _odd_error(report.odd, path)
        if exam.error is not None and not report.problems:
            report.problems = [exam.error.rule]
        cine = exam.film
        if cine is not None and len(cine.heights):
            exam.thickness = _thickness(cine, thickness, report.warnings)
            report.warnings += _doubts(cine, exam.thickness)
            report.kept = [
                Slice(round(float(h - cine.heights[0]), 4), len(frames), numbers_of(frames))
                for h, frames in zip(cine.heights, cine.images, strict=True)
            ]
        yield exam


def _find(
    images: Sequence[Image], report: DicomReport, path: Path
) -> tuple[Cine | None, CalidError | None]:
    """Bring images into slices and frames; why they are no stack, if they are not."""
    report.images = len(images)
    error = _no_stack(images, report, path)
    chosen, rivals = choose(images, report)
    planes, twice = best_takes(chosen, report) if chosen else ([], ())
    if planes:
        planes = unshifted(planes, report)
    cine = film(planes, report) if planes else None
    if error is None and rivals:
        sizes = f"{span(len(group.planes) for group in rivals)} slices"
        error = _several(sizes, list(map(str, rivals)), [g.series for g in rivals], path)
    elif error is None and twice:
        error = _several(f"{len(chosen)} slices", list(map(in_words, twice)), twice, path)
    elif error is None and (cine is None or len(cine.heights) < 2):
        error = GeometryError(
            path,
            "Interpolation needs at least 2 parallel slices at different places, and fewer fit "
            "together here.",
            "Give the whole short-axis stack; calid inspect lists what was found.",
        )
    return cine, error


def _no_stack(images: Sequence[Image], report: DicomReport, path: Path) -> CalidError | None:
    """Why images cannot be searched for a stack, if they cannot."""
    if not images:
        reasons = "; ".join(f"{left.images} {left.reason}" for left in report.left_out)
        why = f" ({reasons})" if reasons else ""
        return InputError(
            path,
            f"There is no DICOM slice in {count(report.files, 'file')}{why}.",
            "Give the folder, zip or file of a short-axis series.",
        )
    studies = {text(i.header, "StudyInstanceUID") for i in images}
    people = {text(i.header, "PatientID") for i in images}
    if len(studies) > 1 or len(people) > 1:
        return InputError(
            path,
            f"The images are of {max(len(studies), len(people))} exams.",
            "Give the folder of one exam.",
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


def _odd_error(odd: Sequence[LeftOut], path: Path) -> GeometryError:
    more = f" And {len(odd) - 3} more." if len(odd) > 3 else ""
    return GeometryError(
        path,
        f"{'. '.join(o.reason for o in odd[:3])}.{more}",
        "Take out what does not belong, or leave such slices out with --odd-slices leave-out; "
        "calid inspect lists everything.",
    )


def _thickness(cine: Cine, given: float | None, notes: list[str]) -> float:
    """Slice thickness in mm; adds a note if headers lack it or disagree."""
    if given is not None:
        return given
    usual = usual_gap(cine.heights) if len(cine.heights) > 1 else 1.0
    found = [number(images[0].header, "SliceThickness") for images in cine.images]
    known = [t for t in found if t is not None and t > 0]
    if len(known) < len(found):
        notes.append("slice thickness is missing; slices are taken to touch")
        return usual
    middle = float(np.median(known))
    if middle > _OVERLAP * usual:
        notes.append(
            f"SliceThickness says {middle:.4g} mm, yet slices are {usual:.4g} mm apart; "
            f"{usual:.4g} mm is used"
        )
        return usual
    if max(known) > 1.01 * min(known):
        notes.append(f"slices are {span(known)} mm thick; {middle:.4g} mm is used")
    return middle


def _doubts(cine: Cine, thickness: float) -> list[str]:
    """Notes on uneven gaps, and on headers that contradict positions or each other."""
    notes = []
    if len(cine.heights) > 1:
        usual, gaps = usual_gap(cine.heights), np.diff(cine.heights)
        said = {number(images[0].header, "SpacingBetweenSlices") for images in cine.images}
        if len(said) == 1 and (one := said.pop()) is not None:
            # Some write the space that is left between two slices.
            off = min(abs(abs(one) - usual), abs(abs(one) + thickness - usual))
            if off > max(TOLD, 0.01 * usual):
                notes.append(
                    f"SpacingBetweenSlices says {abs(one):.4g} mm, yet slices are {usual:.4g} mm "
                    "apart by their positions, which count"
                )
        if np.ptp(gaps) > TOLD:
            missing = " Is a slice missing?" if gaps.max() > 1.5 * gaps.min() else ""
            notes.append(f"gaps between slices are {span(gaps)} mm.{missing}")
    uids = {text(images[0].header, "FrameOfReferenceUID") for images in cine.images}
    if len(uids) > 1:
        notes.append(
            f"slices have {len(uids)} frames of reference: the patient may have moved between them"
        )
    return notes
