"""Compressed pixels: every encoding that can be made here is read, bit for bit if lossless."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from faults.dicom_checks import check_is, refused
from faults.dicom_writer import encoded, image, save, short_axis
from PIL import Image as Picture
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from calid.errors import InputError
from calid.io.dicom import read_dicom

# Dozens of exams, each read from disk by a whole command.
pytestmark = pytest.mark.slow

gdcm = pytest.importorskip("gdcm")

Encode = Callable[[Dataset, Path], bytes]


def by_pydicom(syntax: UID, **options: object) -> Encode:
    def encode(data: Dataset, folder: Path) -> bytes:
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(syntax, generate_instance_uid=False, **options)  # type: ignore[arg-type]
        return encoded(data, syntax)

    return encode


def by_gdcm(syntax: str) -> Encode:
    """What a scanner's software does: another library packs the pixels."""

    def encode(data: Dataset, folder: Path) -> bytes:
        raw, packed = folder / "raw", folder / "packed"
        raw.write_bytes(encoded(data))
        reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
        reader.SetFileName(str(raw))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(packed))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        data.PixelData = pydicom.dcmread(packed).PixelData  # the writer changes other fields
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        return encoded(data, pydicom.dcmread(packed).file_meta.TransferSyntaxUID)

    return encode


def in_8_bits(data: Dataset, folder: Path) -> bytes:
    """Lossy JPEG of 8 bits."""
    buffer = io.BytesIO()
    grey = np.frombuffer(data.PixelData, "<u2").reshape(data.Rows, data.Columns)
    Picture.fromarray((grey // 4).astype(np.uint8)).save(buffer, "JPEG", quality=95)
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = encapsulate([buffer.getvalue()])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    return encoded(data, JPEGBaseline8Bit)


LOSSLESS: dict[UID, Encode] = {
    RLELossless: by_pydicom(RLELossless),
    JPEGLSLossless: by_pydicom(JPEGLSLossless),
    JPEG2000Lossless: by_pydicom(JPEG2000Lossless),
    JPEGLosslessSV1: by_gdcm("JPEGLosslessProcess14_1"),
    JPEGLossless: by_gdcm("JPEGLosslessProcess14"),
}
LOSSY: dict[UID, Encode] = {
    JPEGLSNearLossless: by_pydicom(JPEGLSNearLossless, jls_error=2),
    JPEG2000: by_pydicom(JPEG2000, j2k_cr=[2]),
    JPEGBaseline8Bit: in_8_bits,
}


def exam(encode: Encode, folder: Path) -> Path:
    """A film whose pixels are packed, and the folder for what that needs."""
    (folder / "exam").mkdir()
    for number, data in enumerate(short_axis(matrix=(40, 36))):
        (folder / "exam" / str(number)).write_bytes(encode(data, folder))
    return folder / "exam"


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_a_lossless_encoding_is_read_bit_for_bit(tmp_path: Path, syntax: UID) -> None:
    path = exam(LOSSLESS[syntax], tmp_path)
    assert pydicom.dcmread(path / "0").file_meta.TransferSyntaxUID == syntax
    check_is(read_dicom(path), short_axis(matrix=(40, 36)), 4)


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda syntax: syntax.keyword)
def test_a_lossy_encoding_is_read_within_its_loss(tmp_path: Path, syntax: UID) -> None:
    path = exam(LOSSY[syntax], tmp_path)
    assert pydicom.dcmread(path / "0").file_meta.TransferSyntaxUID == syntax
    stack = read_dicom(path).stack
    plain = read_dicom(save(short_axis(matrix=(40, 36)), tmp_path / "plain")).stack
    scale = 4 if syntax == JPEGBaseline8Bit else 1
    assert np.abs(stack.data * float(scale) - plain.data).mean() < 0.05 * plain.data.max()


def test_slices_of_different_encodings_are_one_stack(tmp_path: Path) -> None:
    images = short_axis(matrix=(40, 36))
    ways = [*LOSSLESS.values(), lambda data, folder: encoded(data)]
    (tmp_path / "exam").mkdir()
    for number, data in enumerate(short_axis(matrix=(40, 36))):
        content = ways[number % len(ways)](data, tmp_path)
        (tmp_path / "exam" / str(number)).write_bytes(content)
    check_is(read_dicom(tmp_path / "exam"), images, 4)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_a_damaged_stream_is_an_error(tmp_path: Path, syntax: UID, capfd) -> None:
    path = exam(LOSSLESS[syntax], tmp_path)
    data = pydicom.dcmread(path / "5")
    data.PixelData = encapsulate([bytes(64)])
    (path / "5").write_bytes(encoded(data, syntax))
    refused(path, InputError, "cannot be decoded|do not fit")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_flipped_bits_in_a_stream_never_end_the_process(tmp_path: Path, syntax: UID) -> None:
    path = exam(LOSSLESS[syntax], tmp_path)
    good, generator = (path / "5").read_bytes(), np.random.default_rng(0)
    start = good.find(b"\xe0\x7f\x10\x00") + 28
    outcomes = set()
    for _ in range(3):
        content = bytearray(good)
        for place in generator.integers(start, len(good) - 8, 4):
            content[place] ^= 1 << generator.integers(8)
        (path / "5").write_bytes(content)
        try:
            outcomes.add(read_dicom(path).stack.shape)
        except InputError as error:
            outcomes.add(type(error))
    assert outcomes <= {(3, 4, 40, 36), InputError}


def test_an_encoding_that_no_decoder_knows_is_named(tmp_path: Path) -> None:
    data = image(matrix=(40, 36))
    packed = by_gdcm("JPEGExtendedProcess2_4")(data, tmp_path)
    (tmp_path / "exam").mkdir()
    for number, one in enumerate(short_axis(phases=1, matrix=(40, 36))):
        one.PixelData = pydicom.dcmread(io.BytesIO(packed)).PixelData
        one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
        (tmp_path / "exam" / str(number)).write_bytes(encoded(one, JPEGExtended12Bit))
    error = refused(tmp_path / "exam", InputError, "JPEG Extended")
    assert "lossless" in error.remedy
