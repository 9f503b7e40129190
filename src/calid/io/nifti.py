"""NIfTI in and out, with the stored values untouched.

The header's fields are read as they are in the file: nibabel's own header checks would repair
some damage (a negative pixdim, for one) and say so only in a log.
"""

from __future__ import annotations

import gzip
import math
import os
import warnings
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from calid.errors import (
    CalidWarning,
    GeometryError,
    InputError,
    IntensityError,
    ResourceError,
    UsageError,
)
from calid.geometry.affine import SpacingFrom, check, resolve, spacing
from calid.io.atomic import atomic, check_output
from calid.io.heartbeat import header_times
from calid.stack import Intensity, SliceStack, Volume

__all__ = [
    "MAX_BYTES",
    "SUFFIXES",
    "doubt_reconstruction",
    "read_stack",
    "refuse_reconstruction",
    "write_on_grid",
    "write_uncertainty",
    "write_volume",
]

MAX_BYTES = 4 * 2**30
"""Largest size of the voxels in memory, in bytes, that is read unless asked otherwise."""

MAX_EXTENSIONS = 64 * 2**20
"""Most bytes from the start of the file to its voxels."""

MAX_TRAILING = 2**20
"""Most decompressed bytes after the last voxel."""

LARGEST_VALUE = float(np.finfo(np.float32).max)
"""Largest voxel, stored or scaled: networks and uncertainties are in single precision."""

MOST_OBLONG = 3.0
"""Largest ratio of a pixel's long side to the larger of its short side and the slice step."""

_DEFLATE_RATIO = 1032  # no deflate stream expands more than this
_PAIRS = (".hdr", ".img", ".hdr.gz", ".img.gz")
_IN_PAIRS = "Header and voxels are one in another file (.hdr and .img).", "Convert it to one .nii."
_DAMAGED = "Copy or download the file again."


def read_stack(
    path: str | os.PathLike[str],
    *,
    spacing_from: SpacingFrom = "auto",
    thickness: float | None = None,
    fill: float | None = None,
    max_bytes: int = MAX_BYTES,
) -> SliceStack:
    """Read a short-axis stack, static or cine, from ``.nii`` or ``.nii.gz``.

    Parameters
    ----------
    path
        The file. Gzip is read to its end, so that its checksum is verified.
    spacing_from
        Where the voxel size comes from if the header contradicts itself; see
        `calid.geometry.affine`.
    thickness
        Slice thickness in mm. NIfTI does not carry it; by default slices touch.
    fill
        Stored value to put where voxels are NaN or infinite. By default they are an error.
    max_bytes
        Voxels that take more memory than this are not read.

    Returns
    -------
    SliceStack
        Data of shape ``(frames, slices, height, width)`` in the file's own dtype (native byte
        order) and stored scale. ``frame_times`` start at the header's toffset.

    Raises
    ------
    InputError
        If the file is missing, damaged, too large, or not NIfTI.
    GeometryError
        If the shape is not that of a stack, or the header's geometry is broken.
    IntensityError
        If voxels are not real numbers, or not finite.
    ResourceError
        If the memory of this machine cannot hold the voxels.
    UsageError
        If an option has an impossible value.

    Warns
    -----
    CalidWarning
        If the header contradicts itself, or its times are none that a heart has.
    """
    path = Path(path)
    if thickness is not None and not (math.isfinite(thickness) and thickness > 0):
        raise UsageError(
            f"--thickness {thickness}", "A slice has a positive thickness.", "Give it in mm."
        )
    if fill is not None and not math.isfinite(fill):
        raise UsageError(f"--fill {fill}", "This is not a finite number.", "Use 0, for example.")
    if max_bytes < 1:
        raise UsageError(f"--max-bytes {max_bytes}", "This is no size.", "Give bytes, 1 or more.")
    size = 0
    try:
        _check_file(path)
        with (
            _open_file(path) as stream,
            # Numbers that overflow are refused by name below; numpy need not warn of them.
            np.errstate(over="ignore", invalid="ignore"),
        ):
            header = _read_header(stream, path)
            shape, rank, axis = _shape(header, path)
            dtype = _dtype(header, path)
            size = math.prod(shape) * dtype.itemsize
            _check_budget(header, size, path, max_bytes)
            intensity = _intensity(header, path)
            affine, notes = resolve(header, path, spacing_from)
            times, time_notes = header_times(header, shape[0], axis, path)
            data = _read_voxels(stream, header, shape, dtype, path)
            fill_notes = _fill(data, fill, path)
            _check_range(data, intensity, path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(path, f"The file cannot be read ({error}).", _DAMAGED) from error
    except MemoryError as error:
        raise ResourceError(
            path,
            f"There is not enough memory for its {size / 2**30:.2g} GiB of voxels.",
            "Crop the scan, split it by frames, or use a machine with more memory.",
        ) from error
    if axis > 4:
        note = f"{path}: time is axis {axis}; those before it have length 1 and are dropped."
        time_notes.append(note)
    notes += _oblong(affine, path) + time_notes + fill_notes
    for note in notes:
        warnings.warn(note, CalidWarning, stacklevel=2)
    step = spacing(affine)[2]
    return SliceStack(
        data=data,
        affine=affine,
        positions=np.arange(shape[1], dtype=np.float64) * step,
        thickness=step if thickness is None else float(thickness),
        frame_times=times,
        intensity=intensity,
        rank=rank,
        source=str(path),
    )


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(path, "This is a folder.", "Give one .nii or .nii.gz file.")
    if not path.exists():
        raise InputError(path, "There is no such file.", "Check the path.")
    if not path.is_file():
        raise InputError(path, "This is not a regular file.", "Give a file on disk.")
    if path.name.lower().endswith(_PAIRS):
        raise InputError(path, *_IN_PAIRS)
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(
            path,
            "Stacks are read from .nii, .nii.gz and DICOM, and this is none of them by its name.",
            "Export the scanner's DICOM images, or convert the file to NIfTI.",
        )
    if path.stat().st_size == 0:
        raise InputError(path, "The file is empty (0 bytes).", _DAMAGED)
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_TRAILING))
        padded = zipped and size > MAX_TRAILING and not any(file.read())
    if zipped != _is_gz(path):
        inside, name = ("gzip", ".nii.gz") if zipped else ("not gzip", ".nii")
        raise InputError(
            path,
            f"The content is {inside}, which the name denies.",
            f"If it is NIfTI, name it {name}; other formats are not read.",
        )
    if padded:  # Python's gzip would skip the padding byte by byte.
        raise InputError(path, "The file ends with more than 1 MiB of zeros.", _DAMAGED)


def _open_file(path: Path) -> BinaryIO:
    """Open a file to read, decompressed if its name says so."""
    return cast(BinaryIO, gzip.open(path) if _is_gz(path) else path.open("rb"))


def _read_header(stream: BinaryIO, path: Path) -> Any:
    """Parse a NIfTI-1 or NIfTI-2 header in either byte order, without repairs."""
    block = stream.read(348)
    start = block[:4]
    for code, size in (("<", int.from_bytes(start, "little")), (">", int.from_bytes(start, "big"))):
        if size not in (348, 540):
            continue
        kind: Any = nib.Nifti1Header if size == 348 else nib.Nifti2Header
        block += stream.read(size - len(block))
        if len(block) < size:
            break
        header = kind(block, endianness=code, check=False)
        magic = bytes(header["magic"].item())[:3]
        if magic in (b"n+1", b"n+2"):
            return header
        if magic in (b"ni1", b"ni2"):
            raise InputError(path, *_IN_PAIRS)
    raise InputError(path, "The content is not NIfTI, or ends within the header.", _DAMAGED)


def _shape(header: Any, path: Path) -> tuple[tuple[int, int, int, int], int, int]:
    """``(frames, slices, height, width)``, the number of axes (3 to 7), and that of time's axis."""
    dim = [int(size) for size in header["dim"]]
    sizes = dim[1 : dim[0] + 1]
    if not 1 <= dim[0] <= 7 or min(sizes) < 1:
        raise GeometryError(path, f"An axis is empty: the shape is {tuple(sizes)}.", _DAMAGED)
    if sum(size > 1 for size in sizes[3:]) > 1:
        raise GeometryError(
            path,
            f"The file has {dim[0]} axes, {tuple(sizes)}; a stack has x, y, slices and time.",
            "Split it into one file per film.",
        )
    if len(sizes) < 3 or sizes[2] < 2:
        raise GeometryError(
            path,
            f"Interpolation needs at least 2 slices and this file has 1: {tuple(sizes)}.",
            "Give the whole short-axis stack in one file.",
        )
    width, height, slices, *others = sizes
    frames = max(others, default=1)
    axis = 4 + others.index(frames) if frames > 1 else 4
    return (frames, slices, height, width), 4 if axis > 4 else dim[0], axis


def _oblong(affine: NDArray[np.float64], path: Path) -> list[str]:
    """Say so if slices seem to lie along another axis than the third."""
    steps = spacing(affine)
    low, high = sorted(steps[:2])
    if high <= MOST_OBLONG * max(low, steps[2]):
        return []
    along = ("first", "second")[int(np.argmax(steps[:2]))]
    return [
        f"{path}: pixels are {steps[0]:.3g} x {steps[1]:.3g} mm. If slices lie along the {along} "
        "axis, put them on the third, for example with nibabel or fslswapdim."
    ]


def _dtype(header: Any, path: Path) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (nib.spatialimages.HeaderDataError, KeyError):
        dtype = np.dtype(np.void)
    if dtype.kind not in "iuf":
        label = "complex numbers" if dtype.kind == "c" else "colours or an unknown type"
        raise IntensityError(
            path,
            f"Voxels are real numbers; these are {label} (code {int(header['datatype'])}).",
            "Export magnitude images in grey values.",
        )
    return dtype


def _check_budget(header: Any, size: int, path: Path, limit: int) -> None:
    """Compare what the header claims with what is allowed and what the file can hold."""
    start = float(header["vox_offset"])
    least = int(header["sizeof_hdr"]) + 4
    if not least <= start <= MAX_EXTENSIONS:
        raise InputError(path, f"The voxels cannot start at byte {start:g}.", _DAMAGED)
    if size > limit:
        raise InputError(
            path,
            f"The header claims {size / 2**30:.1f} GiB of voxels; the limit is "
            f"{limit / 2**30:.1f} GiB.",
            "Crop the scan, split it by frames, or raise the limit with --max-bytes.",
        )
    on_disk = path.stat().st_size
    if int(start) + size > on_disk * (_DEFLATE_RATIO if _is_gz(path) else 1):
        raise InputError(
            path,
            f"The header claims {size} bytes of voxels, which {on_disk} bytes on disk cannot hold.",
            _DAMAGED,
        )


def _intensity(header: Any, path: Path) -> Intensity:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # NIfTI: no scaling
        return Intensity()
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise IntensityError(
            path, f"Slope {slope} and intercept {intercept} are not finite.", "Correct the header."
        )
    return Intensity(slope, intercept)


def _read_voxels(
    stream: BinaryIO, header: Any, shape: tuple[int, ...], dtype: np.dtype[Any], path: Path
) -> NDArray[np.generic]:
    """Read the voxels and then to the end, where gzip keeps its checksum."""
    stream.read(int(header["vox_offset"]) - int(header["sizeof_hdr"]))
    raw = np.empty(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    view, done = raw.data, 0
    while done < raw.size:
        # BinaryIO does not declare readinto, though gzip and plain files have it.
        count = cast(Any, stream).readinto(view[done:])
        if not count:
            raise InputError(
                path, f"The file is cut off: {done} of {raw.size} voxel bytes are there.", _DAMAGED
            )
        done += count
    try:
        rest = stream.read(MAX_TRAILING + 1) if _is_gz(path) else b""
    except gzip.BadGzipFile as error:
        if "Not a gzipped file" not in str(error):
            raise  # a checksum
        rule = "The file cannot be read to its end: bytes follow it that are not compressed."
        raise InputError(path, rule, "Unpack it with gzip -d, which skips them.") from error
    if len(rest) > MAX_TRAILING:
        raise InputError(path, "The file goes on for long after its last voxel.", _DAMAGED)
    # NIfTI's first axis runs fastest, so in C order the axes come reversed.
    return raw.view(dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def _fill(data: NDArray[Any], fill: float | None, path: Path) -> list[str]:
    """Refuse voxels that are not finite, or fill them in place and say so."""
    if data.dtype.kind != "f":
        return []
    bad = ~np.isfinite(data)
    count = int(np.count_nonzero(bad))
    if count == 0:
        return []
    if fill is None:
        frame, slice_, row, column = np.unravel_index(int(np.argmax(bad)), bad.shape)
        raise IntensityError(
            path,
            f"{count} voxels are NaN or infinite, the first in frame {frame}, slice {slice_}, "
            f"row {row}, column {column} (counted from 0).",
            "Repair the export, or name a value for them with --fill.",
        )
    if not np.isfinite(data.dtype.type(fill)):
        raise UsageError(
            f"--fill {fill}", f"Voxels of {data.dtype} cannot hold it.", "Use 0, for example."
        )
    data[bad] = fill
    return [f"{path}: {count} voxels were NaN or infinite and are now {fill:g}."]


def _check_range(data: NDArray[Any], intensity: Intensity, path: Path) -> None:
    """Refuse values, stored or scaled, that single precision cannot hold."""
    largest = max(abs(float(data.min())), abs(float(data.max())))
    scaled = largest * abs(intensity.slope) + abs(intensity.intercept)
    if not max(largest, scaled) <= LARGEST_VALUE:
        raise IntensityError(
            path,
            f"Voxels reach {max(largest, scaled):.3g}; {LARGEST_VALUE:.3g} is the limit of single "
            "precision.",
            "Rescale the image.",
        )


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
    grid: SliceStack | Volume,
    intensity: Intensity,
    text: str,
    path: str | os.PathLike[str],
) -> None:
    """Write ``data`` of a stack's or volume's shape on its grid, complete or not at all.

    ``text`` describes it in the header, in at most 80 characters. A slope of 0 in ``intensity``
    says that values are not scaled.
    """
    target = Path(path)
    check_output(target, suffixes=SUFFIXES)
    header = _new_header(data, grid, intensity, text, target)
    little = data.dtype.newbyteorder("<")
    with atomic(target) as file:
        stream: Any = nullcontext(file)
        if _is_gz(target):
            # No name and no time in the gzip header: equal volumes give equal bytes.
            stream = gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0)
        with stream as out:
            out.write(header.binaryblock + bytes(4))
            for frame in data:
                out.write(np.ascontiguousarray(frame, dtype=little).data.cast("B"))


def _is_gz(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _new_header(
    data: NDArray[Any], grid: SliceStack | Volume, intensity: Intensity, text: str, path: Path
) -> Any:
    """Build a header from nothing, so that no text of the input's can be in it."""
    affine = check(grid.affine, path)
    new_header: Any = nib.Nifti1Header  # nibabel's constructors carry no types
    header = new_header(endianness="<")
    frames = data.shape[0]
    film = frames > 1 or grid.rank > 3
    shape = data.shape[::-1] + (1,) * (grid.rank - 4) if film else data.shape[:0:-1]
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
    times = grid.frame_times
    header["pixdim"][4] = (times[-1] - times[0]) / (frames - 1) if frames > 1 else 1.0
    header["toffset"] = times[0]
    header["scl_slope"], header["scl_inter"] = intensity.slope, intensity.intercept
    header["vox_offset"] = 352
    header["descrip"] = text.encode()
    return header


def refuse_reconstruction(path: Path) -> None:
    """Raise an `InputError` if a file is calid's reconstruction, where slices must be acquired.

    Files that are not NIfTI or cannot be read are left to `calid.io.read`.
    """
    if _made(path):
        raise InputError(
            path,
            "It is a reconstruction: most of its slices are generated, not acquired.",
            "Give the stack that it was made from.",
        )


def doubt_reconstruction(path: Path) -> None:
    """Warn if a file is calid's reconstruction, where that is allowed."""
    if _made(path):
        warnings.warn(
            f"{path}: it is a reconstruction. Generated slices count as acquired ones here.",
            CalidWarning,
            stacklevel=2,
        )


def _made(path: Path) -> bool:
    try:
        with _open_file(path) as stream:
            return bytes(_read_header(stream, path)["descrip"].item()) == MADE.encode()
    except (InputError, OSError, EOFError, zlib.error):
        return False
