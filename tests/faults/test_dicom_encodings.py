"""Compressed pixels: every encoding that can be made here is read, bit for bit if lossless."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from faults.dicom_checks import check_is, refused
from faults.dicom_writer import encoded, save, short_axis
from PIL import Image as Picture
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
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


def packed(data: Dataset, streams: list[bytes]) -> Dataset:
    """The same with compressed pixels."""
    data.PixelData = encapsulate(streams)
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    return data


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
    return encoded(packed(data, [buffer.getvalue()]), JPEGBaseline8Bit)


RAMP = base64.b85decode(
    "|4;u>04YEK0000A0000C00000000000000A0000C0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0sm"
    "Y86Cj9?kdTm&kdTm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000bN~VWlfVEb$@~QebN~Rr0"
    "24p}69A6>0ta*e0{jApbO68r62Jfx0GR+wbO2%a00J}szyK4#02M$<{sALGbpQ+*GW@_Xf&R7tzyK>C02P2v$8kE"
    "&*e}=Mi+2Ea+qUiW1V#{n?6?5`*#"
)
"""High-throughput JPEG 2000 of the pixels ``40 column + 60 row``, 12 rows of 10, lossless."""


def by_openjph(syntax: UID) -> Encode:
    """Always the same image, for nothing at hand writes these."""

    def encode(data: Dataset, folder: Path) -> bytes:
        data.Rows, data.Columns, data.BitsStored, data.HighBit = 12, 10, 16, 15
        return encoded(packed(data, [RAMP]), syntax)

    return encode


def foreign(syntax: str) -> Encode:
    """What no library knows; of as many letters as the UID that it replaces."""

    def encode(data: Dataset, folder: Path) -> bytes:
        content = encoded(packed(data, [bytes(64)]), HTJ2KLossless)
        return content.replace(HTJ2KLossless.encode(), syntax.encode())

    return encode


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
HIGH_THROUGHPUT: dict[UID, Encode] = {
    syntax: by_openjph(syntax) for syntax in (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
}
UNREAD: dict[str, Encode] = {
    "JPEG Extended (Process 2 and 4)": by_gdcm("JPEGExtendedProcess2_4"),
    "1.2.840.10008.1.2.4.110": foreign("1.2.840.10008.1.2.4.110"),  # JPEG XL
    "unknown encoding": foreign("1.2.826.0.1.3680043.999"),
}
"""By how an error calls them: UIDs that are not the standard's may name somebody."""


def exam(encode: Encode, folder: Path) -> Path:
    """A film whose pixels are packed, and the folder for what that needs."""
    (folder / "exam").mkdir()
    for number, data in enumerate(short_axis(matrix=(40, 36))):
        (folder / "exam" / str(number)).write_bytes(encode(data, folder))
    return folder / "exam"


def cut_off(syntax: UID, share: float, folder: Path) -> Path:
    """An exam with one stream that ends early."""
    path = exam(LOSSLESS[syntax], folder)
    data = pydicom.dcmread(path / "5")
    (stream,) = generate_frames(data.PixelData, number_of_frames=1)
    (path / "5").write_bytes(encoded(packed(data, [stream[: int(share * len(stream))]]), syntax))
    return path


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_a_lossless_encoding_is_read_bit_for_bit(tmp_path: Path, syntax: UID) -> None:
    path = exam(LOSSLESS[syntax], tmp_path)
    assert pydicom.dcmread(path / "0").file_meta.TransferSyntaxUID == syntax
    check_is(read_dicom(path), short_axis(matrix=(40, 36)), 4)


@pytest.mark.parametrize("syntax", HIGH_THROUGHPUT, ids=lambda syntax: syntax.keyword)
def test_high_throughput_jpeg_2000_is_read(tmp_path: Path, syntax: UID) -> None:
    path = exam(HIGH_THROUGHPUT[syntax], tmp_path)
    assert pydicom.dcmread(path / "0").file_meta.TransferSyntaxUID == syntax
    rows, columns = np.mgrid[:12, :10]
    found = read_dicom(path).stack.data
    np.testing.assert_array_equal(found, np.broadcast_to(40 * columns + 60 * rows, found.shape))


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


@pytest.mark.parametrize("name", UNREAD)
def test_an_encoding_that_no_decoder_knows_is_named(tmp_path: Path, name: str) -> None:
    error = refused(exam(UNREAD[name], tmp_path), InputError, rf"\({re.escape(name)}\)")
    assert "lossless" in error.remedy


@pytest.mark.parametrize("share", [0.9, 0.1])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_a_stream_that_is_cut_off_is_never_half_an_image(
    tmp_path: Path, syntax: UID, share: float
) -> None:
    refused(cut_off(syntax, share, tmp_path), InputError, "cannot be decoded")
