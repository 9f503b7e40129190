"""Broken NIfTI files: each gives one typed error that names the file and the remedy."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest

from calid.errors import CalidError, CalidWarning, GeometryError, InputError, IntensityError
from calid.io import read, read_stack

SIZE = 352 + 6 * 5 * 4 * 2


def nifti(
    dim: tuple[int, ...] = (6, 5, 4), code: int = 4, data: bytes | None = None, **fields: object
) -> bytes:
    """NIfTI-1 bytes, little-endian, int16 noise by default; ``fields`` are byte patches."""
    raw = bytearray(352)

    def put(offset: int, kind: str, *numbers: float) -> None:
        packed = np.array(numbers, f"<{kind}").tobytes()
        raw[offset : offset + len(packed)] = packed

    put(0, "i4", 348)
    put(40, "i2", len(dim), *dim)
    put(70, "i2", code)
    put(76, "f4", 1, 1.5, 1.5, 8, 0.05)
    put(108, "f4", 352)
    raw[123] = 10
    put(254, "i2", 1)
    put(280, "f4", -1.5, 0, 0, 0, 0, -1.5, 0, 0, 0, 0, 8, 0)
    raw[344:348] = b"n+1\0"
    for spot, value in fields.items():
        offset, kind = re.fullmatch(r"at(\d+)_(\w+)", spot).groups()  # type: ignore[union-attr]
        put(int(offset), kind, *np.atleast_1d(value))
    if data is None:
        data = np.random.default_rng(0).integers(0, 99, SIZE // 2 - 176).astype("<i2").tobytes()
    return bytes(raw) + data


def flipped(raw: bytes, place: int) -> bytes:
    broken = bytearray(raw)
    broken[place] ^= 1
    return bytes(broken)


def floats(bad: float) -> bytes:
    data = np.zeros((4, 5, 6), "<f4")
    data[2, 3, 4] = data[3, 0, 0] = bad
    return nifti(code=16, data=data.tobytes())


GOOD = nifti()
STORED = gzip.compress(GOOD, compresslevel=0)  # uncompressed blocks: any flip still inflates

FAULTS: dict[str, tuple[str, bytes | None, type[CalidError], str]] = {
    "missing": ("a.nii", None, InputError, "no such file"),
    "zero bytes": ("a.nii.gz", b"", InputError, "0 bytes"),
    "truncated gz": ("a.nii.gz", gzip.compress(GOOD)[:-40], InputError, "cannot be read"),
    "gz without its checksum": ("a.nii.gz", gzip.compress(GOOD)[:-8], InputError, "cannot be read"),
    "truncated inside gz": ("a.nii.gz", gzip.compress(GOOD[:-10]), InputError, "cut off"),
    "truncated": ("a.nii", GOOD[:-10], InputError, "cannot hold"),
    "header only": ("a.nii", GOOD[:200], InputError, "not NIfTI"),
    "flipped bit": ("a.nii.gz", flipped(STORED, 500), InputError, "CRC"),
    "bad checksum": ("a.nii.gz", flipped(STORED, len(STORED) - 6), InputError, "CRC"),
    "garbage after gz": ("a.nii.gz", STORED + b"rubbish", InputError, "cannot be read"),
    "zeros after gz": ("a.nii.gz", STORED + bytes(2**21), InputError, "1 MiB of zeros"),
    "not gzip": ("a.nii.gz", GOOD, InputError, "not gzip"),
    "gzip named nii": ("a.nii", gzip.compress(GOOD), InputError, "name it .nii.gz"),
    "not nifti": ("a.nii", b"PNG" * 500, InputError, "not NIfTI"),
    "wrong suffix": ("a.mha", GOOD, InputError, "none of them by its name"),
    "pair": ("a.nii", GOOD.replace(b"n+1", b"ni1"), InputError, "another file"),
    "analyze": ("a.nii", GOOD.replace(b"n+1", b"\0\0\0"), InputError, "not NIfTI"),
    "claims 10 GB": ("a.nii.gz", gzip.compress(nifti((30000, 30000, 6))), InputError, "10.1 GiB"),
    "claims 1 GB": ("a.nii.gz", gzip.compress(nifti((9000, 9000, 6))), InputError, "cannot hold"),
    "bomb": ("a.nii.gz", gzip.compress(GOOD + bytes(2**21)), InputError, "last voxel"),
    "voxels start in header": ("a.nii", nifti(at108_f4=10), InputError, "byte 10"),
    "voxels start nowhere": ("a.nii", nifti(at108_f4=np.nan), InputError, "byte nan"),
    "voxels start far off": ("a.nii.gz", gzip.compress(nifti(at108_f4=1e12)), InputError, "1e+12"),
    "rgb": ("a.nii", nifti(code=128), IntensityError, "colours"),
    "complex": ("a.nii", nifti(code=32), IntensityError, "complex"),
    "unknown type": ("a.nii", nifti(code=77), IntensityError, "code 77"),
    "bits": ("a.nii", nifti(code=1), IntensityError, "code 1"),
    "infinite slope": ("a.nii", nifti(at112_f4=np.inf), IntensityError, "Slope inf"),
    "beyond single precision": (
        "a.nii",
        nifti(code=64, data=np.linspace(0, 1e300, 120, dtype="<f8").tobytes()),
        IntensityError,
        "1e+300",
    ),
    "beyond single precision once scaled": (
        "a.nii",
        nifti(at112_f4=3e38),
        IntensityError,
        "single precision",
    ),
    "nan": ("a.nii", floats(np.nan), IntensityError, "2 voxels.*slice 2, row 3, column 4"),
    "inf": ("a.nii", floats(-np.inf), IntensityError, "2 voxels.*slice 2, row 3, column 4.*--fill"),
    "one slice": ("a.nii", nifti((6, 5, 1)), GeometryError, "at least 2 slices"),
    "one slice, cine": ("a.nii", nifti((6, 5, 1, 4)), GeometryError, "at least 2 slices"),
    "2D": ("a.nii", nifti((6, 5)), GeometryError, "at least 2 slices"),
    "empty axis": ("a.nii", nifti((6, 0, 4)), GeometryError, "axis is empty"),
    "negative axis": ("a.nii", nifti((6, -5, 4)), GeometryError, "axis is empty"),
    "no axes": ("a.nii", nifti(at40_i2=0), GeometryError, "axis is empty"),
    "five axes": ("a.nii", nifti((6, 5, 2, 2, 2)), GeometryError, "5 axes"),
    "spectrum": ("a.nii", nifti((6, 5, 2, 2), at123_u1=2 + 32), GeometryError, "spectrum"),
    "nan affine": ("a.nii", nifti(at280_f4=np.nan), GeometryError, "not numbers"),
    "singular affine": ("a.nii", nifti(at312_f4=[0, 0, 0]), GeometryError, "singular"),
    "sheared affine": ("a.nii", nifti(at288_f4=1.0), GeometryError, "sheared"),
    "affine beyond a kilometre": ("a.nii", nifti(at292_f4=2e6), GeometryError, "beyond"),
    "zero pixdim": ("a.nii", nifti(at80_f4=0), GeometryError, "pixdim"),
    "negative pixdim": ("a.nii", nifti(at88_f4=-8), GeometryError, "pixdim"),
    "nan pixdim": ("a.nii", nifti(at84_f4=np.nan), GeometryError, "pixdim"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(tmp_path: Path, fault: str) -> None:
    name, content, kind, rule = FAULTS[fault]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CalidError) as caught:
        read(path)
    error = caught.value
    assert type(error) is kind
    assert re.search(rule.replace("+", r"\+"), str(error))
    assert str(path) in error.subject
    assert len(error.remedy) > 5
    assert error.remedy.endswith(".")
    assert error.exit_code > 1
    assert sorted(tmp_path.iterdir()) == before


def test_the_fault_writer_is_sound(tmp_path: Path) -> None:
    for name, content in (("a.nii", GOOD), ("a.nii.gz", STORED)):
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name).shape == (1, 4, 5, 6)


def test_folder_is_no_nifti(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder"):
        read_stack(tmp_path)


def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(InputError, match="regular file"):
        read(tmp_path / "a.nii")


def test_budget_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(GOOD)
    with pytest.raises(InputError, match="limit"):
        read(tmp_path / "a.nii", max_bytes=100)


@pytest.mark.parametrize(
    ("patch", "rule"),
    [
        ({"at80_f4": [1.8, 1.8, 10]}, "sform says 1.5 x 1.5 x 8 mm and pixdim says 1.8 x 1.8 x 10"),
        ({"at252_i2": 1, "at268_f4": 9.0}, "sform and qform disagree"),
        ({"at254_i2": 0}, "neither sform nor qform"),
        ({"at123_u1": 1}, "implausible"),
    ],
)
def test_doubtful_geometry_is_read_and_said(
    tmp_path: Path, patch: dict[str, object], rule: str
) -> None:
    path = tmp_path / "a.nii"
    # A half turn about the third axis, as the sform has it.
    path.write_bytes(nifti(**({"at256_f4": [0, 0, 1]} | patch)))  # type: ignore[arg-type]
    with pytest.warns(CalidWarning, match=rule) as caught:
        read(path)
    assert len(caught) == 1
    assert str(path) in str(caught[0].message)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::calid.errors.CalidWarning")
def test_no_header_byte_gives_an_untyped_error(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    for place in range(348):
        for value in (0x7F, 0xFF):
            raw = bytearray(GOOD)
            raw[place] = value
            path.write_bytes(raw)
            try:
                read(path)
            except CalidError:
                continue
