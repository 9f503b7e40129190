"""Damaged files for `fuzz`: sound NIfTI and DICOM inputs, and what is done to their bytes."""

from __future__ import annotations

import gzip
import importlib
import io
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

__all__ = ["makers"]

SMALL = (0, 1, -1, 2, 3, 5, 7, 127, 128, 255, 256, 348, 540, 32767, -32768, 65535)
NUMBERS = (*SMALL, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e-45, 3e38, -3e38, 1e6, 0.5, float("inf"), float("nan"))

SOUND: tuple[tuple[type[nib.Nifti1Header], Literal["<", ">"], str, tuple[int, ...]], ...] = (
    (nib.Nifti1Header, "<", "i2", (6, 5, 4)),
    (nib.Nifti1Header, ">", "f4", (4, 3, 3, 2)),
    (nib.Nifti1Header, "<", "u1", (5, 4, 2, 3)),
    (nib.Nifti2Header, "<", "f8", (3, 4, 3)),
    (nib.Nifti2Header, ">", "u2", (3, 4, 3, 1)),
)
"""Header, byte order, type and shape of the sound files."""

JPEG = "JPEGLosslessSV1"
PACKED = ("RLELossless", "JPEGLSLossless", "JPEG2000Lossless", JPEG)
"""Transfer syntaxes of the compressed seeds."""
PIXELS = b"\xe0\x7f\x10\x00"
"""Tag of the pixels."""


def nifti_seeds() -> list[bytes]:
    """Uncompressed NIfTI files of both versions, byte orders and several types."""
    rng = np.random.default_rng(0)
    made = []
    for kind, order, dtype, shape in SOUND:
        header = kind(None, order)
        header.set_data_dtype(dtype)
        header.set_data_shape(shape)
        affine = np.diag([-1.5, -1.25, 8.0, 1.0])
        affine[:3, 3] = (40, -30, 12)
        header.set_sform(affine, 1)
        header.set_qform(affine, 1)
        header.set_xyzt_units("mm", "sec")
        if len(shape) > 3:
            header["pixdim"][4] = 0.04
        header["vox_offset"] = int(header["sizeof_hdr"]) + 4
        voxels = rng.integers(0, 200, shape).astype(np.dtype(dtype).newbyteorder(order))
        made.append(header.binaryblock + bytes(4) + voxels.tobytes("F"))
    return made


def dicom_seed(syntax: str = "") -> dict[str, bytes]:
    """A film of three slices and two frames, one file an image.

    Parameters
    ----------
    syntax
        Keyword of the transfer syntax that pixels are compressed in; none if empty.
    """
    from pydicom import uid
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    study, series, frame = (generate_uid(entropy_srcs=[name]) for name in ("a", "b", "c"))
    matrix = (34, 32) if syntax else (8, 6)  # JPEG 2000 has no smaller images
    files = {}
    rng = np.random.default_rng(0)
    for number in range(6):
        height, phase = divmod(number, 2)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        image.SOPClassUID = MRImageStorage
        image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.FrameOfReferenceUID = frame
        image.Modality, image.SeriesDescription = "MR", "cine_sax"
        image.SeriesNumber, image.InstanceNumber = 5, number + 1
        image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        image.Rows, image.Columns = matrix
        image.PixelSpacing, image.SliceThickness = [1.4, 1.4], 8
        image.SpacingBetweenSlices = 10
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.ImagePositionPatient = [-60, -70, 10 * height]
        image.TriggerTime, image.CardiacNumberOfImages = 40 * phase, 2
        image.RescaleSlope, image.RescaleIntercept = 1, 0
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
        image.PixelRepresentation = 0
        image.PixelData = rng.integers(0, 900, matrix).astype("<u2").tobytes()
        buffer = io.BytesIO()
        if syntax and syntax != JPEG:
            image.compress(getattr(uid, syntax), generate_instance_uid=False)
        image.save_as(buffer, enforce_file_format=True)
        content = buffer.getvalue()
        files[f"IM{number:03d}.dcm"] = lossless_jpeg(content) if syntax == JPEG else content
    return files


def lossless_jpeg(content: bytes) -> bytes:
    """A DICOM file with its pixels compressed by GDCM, which works on disk only."""
    gdcm: Any = importlib.import_module("gdcm")  # which carries no types
    with tempfile.TemporaryDirectory() as folder:
        raw, packed = Path(folder, "raw"), Path(folder, "packed")
        raw.write_bytes(content)
        reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
        reader.SetFileName(str(raw))
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        if not reader.Read():
            raise RuntimeError("GDCM does not read its input")
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise RuntimeError("GDCM does not compress")
        writer.SetFileName(str(packed))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise RuntimeError("GDCM does not write")
        return packed.read_bytes()


KINDS = (
    *("flip bits", "set bytes", "set a number", "set a number", "set a number"),
    *("truncate", "lengthen", "cut out", "double", "exchange"),
)


def damage(raw: bytearray, rng: random.Random) -> None:
    """Damage of one kind, in place."""
    size = len(raw)
    match rng.choice(KINDS):
        case "flip bits":
            for _ in range(rng.choice((1, 1, 2, 8))):
                raw[rng.randrange(size)] ^= 1 << rng.randrange(8)
        case "set bytes":  # neighbouring ones
            start = rng.randrange(size)
            for place in range(start, min(size, start + rng.choice((1, 2, 4, 16)))):
                raw[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        case "set a number":  # one that often breaks arithmetic, where a number may be
            order, kind = rng.choice("<>"), rng.choice("hiqfd")
            width = struct.calcsize(kind)
            place = 2 * rng.randrange(max(1, min(size, 540) - width) // 2 + 1)
            if kind in "fd":
                packed = struct.pack(order + kind, rng.choice(FLOATS))
            else:
                number = rng.choice(NUMBERS) % 256**width
                packed = number.to_bytes(width, "little" if order == "<" else "big")
            raw[place : place + width] = packed
        case "truncate":
            del raw[rng.randrange(size) :]
        case "lengthen":
            raw += rng.choice((bytes(64), rng.randbytes(64), bytes(2**21)))
        case "cut out":
            start = rng.randrange(size)
            del raw[start : start + rng.choice((1, 2, 8, 100))]
        case "double":  # repeat a piece, once or often
            start = rng.randrange(size)
            raw[start:start] = raw[start : start + rng.choice((1, 4, 100))] * rng.choice((1, 1, 50))
        case "exchange":  # two pieces
            length = rng.choice((1, 2, 4, 32))
            one, two = (rng.randrange(max(1, size - length)) for _ in range(2))
            if abs(one - two) >= length:
                first, second = raw[one : one + length], raw[two : two + length]
                raw[one : one + length], raw[two : two + length] = second, first


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A copy with one or more kinds of damage."""
    raw = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if raw:
            damage(raw, rng)
    return bytes(raw)


Maker = Callable[[Path, random.Random], Path]
"""Writes one damaged input into an empty folder and returns its path."""


def nifti_maker() -> Maker:
    """Damage before or after compression, or without any."""
    seeds = nifti_seeds()

    def make(folder: Path, rng: random.Random) -> Path:
        way = rng.choice((0, 0, 0, 1, 1, 2, 3))
        raw = rng.choice(seeds)
        if way < 2:  # damage inside, sound around
            raw = mutated(raw, rng)
        path = folder / ("a.nii.gz" if way else "a.nii")
        if way:
            raw = gzip.compress(raw, compresslevel=rng.choice((0, 6)), mtime=0)
        if way > 1:
            raw = mutated(raw, rng)
        path.write_bytes(raw)
        return path

    return make


def dicom_maker(syntaxes: tuple[str, ...] = ()) -> Maker:
    """Damage in one file, in a folder or zip of files, or in the zip itself.

    Of compressed files, half of the damage is to the pixels alone.
    """
    seeds = [dicom_seed(syntax) for syntax in syntaxes or ("",)]

    def make(folder: Path, rng: random.Random) -> Path:
        files = dict(rng.choice(seeds))
        way = rng.randrange(4)
        if way < 3:
            names = sorted(files)
            for name in rng.sample(names, rng.choice((1, 1, 2, len(names)))):
                start = rng.choice((0, files[name].find(PIXELS) if syntaxes else 0))
                files[name] = files[name][:start] + mutated(files[name][start:], rng)
        if way == 0:
            path = folder / "IM.dcm"
            path.write_bytes(files[rng.choice(sorted(files))])
            return path
        if way == 1:
            path = folder / "exam"
            path.mkdir()
            for name, content in files.items():
                (path / name).write_bytes(content)
            return path
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        path = folder / "exam.zip"
        path.write_bytes(buffer.getvalue() if way == 2 else mutated(buffer.getvalue(), rng))
        return path

    return make


def makers(kind: str) -> dict[str, Maker]:
    """Makers by the kind of input."""
    every: dict[str, Callable[[], Maker]] = {
        "nifti": nifti_maker,
        "dicom": dicom_maker,
        "packed": partial(dicom_maker, PACKED),
    }
    return {name: make() for name, make in every.items() if kind in (name, "all")}
