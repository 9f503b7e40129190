"""NIfTI out: a volume on its own grid, complete or not at all."""

from __future__ import annotations

import gzip
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from calid.errors import GeometryError, IntensityError, UsageError
from calid.geometry.affine import check
from calid.io.atomic import atomic, check_output
from calid.stack import Intensity, Volume

__all__ = ["SUFFIXES", "is_gz", "write_on_grid", "write_uncertainty", "write_volume"]

SUFFIXES = (".nii", ".nii.gz")

MADE, STACK = "CaLID reconstruction", "CaLID stack"
"""What a file says that it is; a stack has nothing but acquired slices."""


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a reconstruction as NIfTI-1: its own dtype, the stored values bit for bit.

    Sform and qform are both set. The mean frame time goes to pixdim[4], the first frame's
    to toffset. The file's bytes depend on the volume only. A film of several frames has four
    axes whatever its rank.

    Raises
    ------
    OutputError
        If it cannot be written there; an older file is then unchanged.
    GeometryError, IntensityError
        If NIfTI-1 cannot hold the volume's affine, shape or dtype.
    """
    text = STACK if volume.acquired.all() else MADE
    write_on_grid(volume.data, volume, volume.intensity, text, path)


def write_uncertainty(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a volume's uncertainty as float32 NIfTI-1 in image units, on the same grid.

    Raises
    ------
    UsageError
        If the volume carries none.
    OutputError
        If it cannot be written there; an older file is then unchanged.
    """
    if volume.uncertainty is None:
        raise UsageError(
            path, "This reconstruction has no uncertainty.", "Ask for several samples."
        )
    data = volume.uncertainty.astype(np.float32, copy=False)
    write_on_grid(data, volume, Intensity(), "CaLID uncertainty", path)


def write_on_grid(
    data: NDArray[Any],
    volume: Volume,
    intensity: Intensity,
    text: str,
    path: str | os.PathLike[str],
) -> None:
    """Write ``data`` of the volume's shape on the volume's grid, complete or not at all.

    Parameters
    ----------
    intensity
        Slope and intercept for the header; a slope of 0 says that values are not scaled.
    text
        Description in the header, at most 80 characters.
    """
    target = Path(path)
    check_output(target, suffixes=SUFFIXES)
    header = _new_header(data, volume, intensity, text, target)
    little = data.dtype.newbyteorder("<")
    with atomic(target) as file, _packed(file, target) as stream:
        stream.write(header.binaryblock + bytes(4))
        for frame in data:
            stream.write(np.ascontiguousarray(frame, dtype=little).data.cast("B"))


def is_gz(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.name.lower().endswith(".gz")


def _packed(file: BinaryIO, path: Path) -> AbstractContextManager[BinaryIO]:
    if not is_gz(path):
        return nullcontext(file)
    # No name and no time in the gzip header: equal volumes give equal bytes.
    stream = gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0)
    return cast(AbstractContextManager[BinaryIO], stream)


def _new_header(
    data: NDArray[Any], volume: Volume, intensity: Intensity, text: str, path: Path
) -> Any:
    """Build a header from nothing, so that no text of the input's can be in it."""
    affine = check(volume.affine, path)
    new_header: Any = nib.Nifti1Header  # nibabel's constructors carry no types
    header = new_header(endianness="<")
    frames = data.shape[0]
    film = frames > 1 or volume.rank > 3
    shape = data.shape[::-1] + (1,) * (volume.rank - 4) if film else data.shape[:0:-1]
    if max(shape) > np.iinfo(np.int16).max:
        raise GeometryError(path, f"NIfTI-1 cannot hold an axis of {max(shape)}.", "Crop it.")
    try:
        header.set_data_dtype(data.dtype)
    except nib.spatialimages.HeaderDataError as error:
        raise IntensityError(
            path, f"NIfTI cannot store {data.dtype}.", "Use an integer or float type."
        ) from error
    header.set_data_shape(shape)
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    header.set_xyzt_units("mm", "sec")
    times = volume.frame_times
    header["pixdim"][4] = (times[-1] - times[0]) / (frames - 1) if frames > 1 else 1.0
    header["toffset"] = times[0]
    header["scl_slope"], header["scl_inter"] = intensity.slope, intensity.intercept
    header["vox_offset"] = 352
    header["descrip"] = text.encode()
    return header
