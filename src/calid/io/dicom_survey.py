"""What the images of an exam amount to: a stack, what it leaves out, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calid.errors import CalidError, GeometryError, InputError
from calid.geometry.dense_grid import usual_gap
from calid.io.dicom_fields import number, text
from calid.io.dicom_group import CONTRAST, Odd, Plane, choose, unshifted
from calid.io.dicom_read import Scan
from calid.io.dicom_report import DicomReport, LeftOut, Slice
from calid.io.dicom_time import Film, film
from calid.words import count, span

__all__ = ["OPTION", "OddSlices", "Survey", "survey"]

OddSlices = Literal["refuse", "leave-out"]
"""What to do with slices that do not fit the others."""

OPTION = "--odd-slices"
"""Where users choose it."""
_UNEVEN = 0.1
"""mm by which gaps may differ before it is said."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What was found, before any pixel is decoded.

    Parameters
    ----------
    report
        For the user.
    error
        Why it cannot be read; none if it can.
    film
        The slices in order; none if no two planes are parallel.
    thickness
        Of the slices, in mm.
    """

    report: DicomReport
    error: CalidError | None
    film: Film | None
    thickness: float


def survey(found: Scan, path: Path, odd_slices: OddSlices, thickness: float | None) -> Survey:
    """From images to slices in order, with everything that has to be said about it."""
    left_out, odd, notes = list(found.left_out), [], []
    planes, others, strangers, tie = choose(found.images)
    left_out += others
    odd += strangers
    cine: Film | None = None
    if planes:
        planes, shifted, shift = unshifted(planes)
        odd += shifted
        if shift > _UNEVEN:
            notes.append(f"slices are shifted in-plane by up to {shift:.2g} mm, which is ignored")
    if planes:
        cine = film(planes)
        odd += cine.odd
        notes += cine.notes
    error = _problem(found, planes, cine, tie, path)
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
        notes = [*_views(others), *notes]
        own, more = _thickness(cine, thickness)
        notes += [*more, *_gaps(cine.heights), *_frames_of_reference(cine)]
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
        time_from=cine.clock if cine else "",
        time_spread_s=cine.spread if cine else 0.0,
    )
    return Survey(report, error, cine, own)


def _problem(
    found: Scan, planes: list[Plane], cine: Film | None, tie: bool, path: Path
) -> CalidError | None:
    """Why there is no stack, if there is none."""
    if not found.images:
        return InputError(
            path,
            f"There is no DICOM slice in {count(found.files, 'file')}.",
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
    if tie:
        return GeometryError(
            path,
            f"There are two stacks of {len(planes)} slices, and nothing says which one is meant.",
            "Give the folder of one of them, or the numbers of its series with --series; "
            "calid inspect lists them.",
        )
    if cine is None or len(cine.heights) < 2:
        return GeometryError(
            path,
            "Interpolation needs at least 2 parallel slices at different places, and fewer fit "
            "together here.",
            "Give the whole short-axis stack; calid inspect lists what was found.",
        )
    return None


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
    if max(known) > 1.01 * min(known):
        return middle, [f"slices are {span(known)} mm thick; {middle:.4g} mm is used"]
    return middle, []


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


def _views(others: Sequence[LeftOut]) -> list[str]:
    notes = []
    for what, part in (
        ("view", [o for o in others if o.reason != CONTRAST]),
        ("contrast", [o for o in others if o.reason == CONTRAST]),
    ):
        if part:
            many = f"{what} is" if len(part) == 1 else f"{what}s are"
            images = sum(group.images for group in part)
            notes.append(f"{len(part)} other {many} left out ({images} images)")
    return notes
