"""DICOM out: a volume as a derived MR series, complete or not at all."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from pydicom import config
from pydicom.dataset import Dataset

from calid.io.atomic_folder import atomic_folder, check_new_folder
from calid.io.dicom_write_pixels import to_16_bit
from calid.io.dicom_write_planes import match_headers, planes
from calid.io.dicom_write_series import Series
from calid.stack import Volume

__all__ = ["write_dicom"]


def write_dicom(
    volume: Volume,
    folder: str | os.PathLike[str],
    headers: Sequence[Sequence[Dataset]] | None = None,
    *,
    thickness: float | None = None,
) -> None:
    """Write a reconstruction as a derived series of single-frame MR images.

    One file per slice and frame, numbered frame by frame. Every image says in ImageComments
    and DerivationDescription whether its slice was acquired or generated, and from which
    slices; SourceImageSequence refers to them. Acquired slices keep their stored values.

    With headers, the series belongs to the sources' study and frame of reference, and carries
    over their patient: this is the only output of the package that does, and
    `calid.io.dicom_write_modules` lists every attribute. Without, it makes a study of its own
    for an anonymous patient, the same for every reconstruction of the same slices. UIDs are
    hashes of the content: equal volumes give equal files, others never share one.

    Parameters
    ----------
    volume
        What to write. Slices lie at its true positions, also where its affine has only their
        mean step.
    folder
        The folder to make; it may exist if it is empty.
    headers
        The source images' datasets, ``[frame][acquired slice]``, slices in any order. Pixels
        are not needed. The header of one frame of a multi-frame file has its number (from 1)
        in ReferencedFrameNumber.
    thickness
        Slice thickness in mm. Generated slices estimate what the scanner would see there, so
        it is theirs too. Left empty if unknown.

    Raises
    ------
    OutputError
        If the folder holds files or cannot be written.
    GeometryError
        If the affine cannot be used or headers do not lie where the acquired slices are.
    IntensityError
        If values are not finite real numbers.

    Warns
    -----
    CalidWarning
        If values do not fit into 16-bit integers and are quantised.
    """
    check_new_folder(folder)
    places = planes(volume)
    pixels = to_16_bit(volume)
    with _quiet():
        sources = None if headers is None else match_headers(headers, volume, places)
        series = Series.of(volume, places, pixels, sources, thickness)
        frames, slices = volume.data.shape[:2]
        with atomic_folder(folder) as temporary:
            for frame, place in np.ndindex(frames, slices):
                name = f"slice-{place + 1:03d}.dcm"
                if frames > 1:
                    name = f"frame-{frame + 1:03d}_{name}"
                image = series.image(frame, place)
                image.save_as(temporary / name, enforce_file_format=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """A source's values may break rules; they are carried over as they are, without a remark."""
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
