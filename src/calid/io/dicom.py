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
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from calid.errors import CalidError, CalidWarning, UsageError
from calid.io.archive import Limits, members
from calid.io.dicom_pixels import check_budget, read_pixels
from calid.io.dicom_read import Image, scan
from calid.io.dicom_report import DicomReport, LeftOut
from calid.io.dicom_survey import OPTION, OddSlices, Survey, survey
from calid.stack import SliceStack

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["DicomStack", "Exam", "OddSlices", "open_dicom", "read_dicom"]


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
    _survey: Survey
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
        film = self._survey.film
        assert film is not None
        slices = film.images
        check_budget([image for frames in slices for image in frames], self.path, self._max_bytes)
        data, intensity = read_pixels(slices, self.path)
        for note in self.report.warnings:
            warnings.warn(f"{self.path}: {note}", CalidWarning, stacklevel=3)
        stack = SliceStack(
            data=data,
            affine=_affine(slices[0][0], film.heights),
            positions=film.heights - film.heights[0],
            thickness=self._survey.thickness,
            frame_times=film.times,
            intensity=intensity,
            rank=4 if len(film.times) > 1 else 3,
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
    with members(path, Limits(total=max_bytes)) as (files, links):
        found = scan(files, path).of(series, path)
        if links:
            found.left_out.append(LeftOut("a link that leads out of the folder", links))
        what = survey(found, path, odd_slices, thickness)
        yield Exam(path, what.report, what.error, what, max_bytes)


def _affine(first: Image, heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxel indices of the first slice to RAS+ millimetres, with the mean step."""
    affine = np.eye(4)
    row, column = first.spacing
    step = (heights[-1] - heights[0]) / (len(heights) - 1)
    affine[:3, :3] = first.axes * [column, row, step]
    affine[:3, 3] = first.corner
    return affine
