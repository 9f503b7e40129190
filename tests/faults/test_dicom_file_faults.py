from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from faults.dicom_checks import check_is, refused
from faults.dicom_writer import SECRETS, encoded, image, save, save_zip, short_axis
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from calid.errors import CalidError, CalidWarning, GeometryError, InputError, IntensityError
from calid.io import read
from calid.io.dicom import read_dicom
from calid.io.find import Limits, members

# 22: archives that harm


def evil_zip(path: Path, name: str, link: bool = False) -> Path:
    save_zip(short_axis(phases=1), path)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(name)
        if link:
            info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return path


@pytest.mark.parametrize(
    "name", ["../escaped.dcm", "a/../../escaped.dcm", "/tmp/escaped.dcm", "C:\\escaped.dcm",
             "a\\..\\..\\escaped.dcm"]
)  # fmt: skip
def test_names_that_lead_out_of_a_zip(tmp_path, name):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    refused(evil_zip(inside / "exam.zip", name), InputError, "leads out of the zip")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["exam.zip"]


def test_a_link_in_a_zip(tmp_path):
    refused(evil_zip(tmp_path / "exam.zip", "link.dcm", link=True), InputError, "symbolic link")


def test_a_zip_writes_nothing_anywhere(tmp_path, monkeypatch):
    path = save_zip(short_axis(phases=1), tmp_path / "exam.zip")
    real = os.open
    opened = []

    def spy(file, flags, *rest, **more):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            opened.append(file)
        return real(file, flags, *rest, **more)

    monkeypatch.setattr(os, "open", spy)
    monkeypatch.setattr("tempfile.mkdtemp", lambda *a, **k: pytest.fail("temporary folder"))
    assert read(path).n_slices == 4
    assert opened == []


@pytest.mark.parametrize(("files", "size"), [(1, 20 * 2**20), (20, 2**20)])
def test_a_bomb(tmp_path, files, size):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(files):
            archive.writestr(f"{number}.dcm", bytes(size))
    refused(path, InputError, "more than 200 times")


def test_a_zip_larger_than_allowed(tmp_path):
    path = save_zip(short_axis(), tmp_path / "exam.zip")
    refused(path, InputError, "are allowed", max_bytes=1000)


def test_more_files_than_allowed(tmp_path):
    path = save_zip(short_axis(), tmp_path / "exam.zip")
    for source in (path, save(short_axis(), tmp_path / "exam")):
        with pytest.raises(InputError, match="holds 12 files"), members(source, Limits(files=11)):
            pass


def test_an_encrypted_zip(tmp_path):
    path = save_zip(short_axis(), tmp_path / "exam.zip")
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = content.find(mark)
        content[place + offset] |= 1
    path.write_bytes(content)
    refused(path, InputError, "encrypted")


def test_a_damaged_zip(tmp_path):
    path = save_zip(short_axis(), tmp_path / "exam.zip")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    refused(path, InputError, "damaged or cut off")
    content[200] ^= 0xFF
    path.write_bytes(content)
    refused(path, InputError, "damaged")
    path.write_bytes(b"no zip at all")
    refused(path, InputError, "not a zip")


@pytest.mark.parametrize(
    ("place", "patch"),
    [
        (6, b"\x00\x08"),  # the name is said to be UTF-8
        (28, b"\xff\xff"),  # a field after the name that reaches beyond the file
        (0, b"PK\x09\x09"),  # no header
    ],
)
def test_a_zip_with_a_damaged_header_before_a_file(tmp_path, place, patch):
    path = save_zip(short_axis(phases=1), tmp_path / "exam.zip")
    content = bytearray(path.read_bytes())
    content[30:32] = b"\xce\x28"  # in the name of the first file: no UTF-8
    content[place : place + len(patch)] = patch
    path.write_bytes(content)
    refused(path, InputError, "damaged|not a zip")


def test_a_file_without_a_name_in_a_zip(tmp_path):
    path = save_zip(short_axis(phases=1), tmp_path / "exam.zip")
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 46] = 0  # names end at a zero
    path.write_bytes(content)
    refused(path, InputError, "damaged")


def test_a_zip_within_a_zip_is_not_opened(tmp_path):
    inner = save_zip(short_axis((0, 10)), tmp_path / "inner.zip")
    path = save_zip(short_axis(), tmp_path / "outer.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(inner, "more.zip")
    with pytest.warns(CalidWarning, match="1 file is left out: not DICOM"):
        found = read_dicom(path)
    assert found.stack.n_slices == 4
    assert [v.reason for v in found.report.left_out] == ["not DICOM"]


def test_a_dicomdir_leads_nowhere(tmp_path):
    images = short_axis(phases=1)
    outside = tmp_path / "outside.dcm"
    outside.write_bytes(encoded(image(40)))
    folder = save(images, tmp_path / "exam")
    record, directory = Dataset(), Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the writer sees through it
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = ["..", "outside.dcm"]
        directory.SOPClassUID = "1.2.840.10008.1.3.10"
        directory.DirectoryRecordSequence = [record]
        (folder / "DICOMDIR").write_bytes(encoded(directory))
    with pytest.warns(CalidWarning, match="1 file is left out: a DICOMDIR"):
        found = read_dicom(folder)
    assert found.stack.n_slices == 4


def test_a_pipe_in_a_folder_does_not_hang(tmp_path):
    folder = save(short_axis(phases=1), tmp_path / "exam")
    os.mkfifo(folder / "pipe.dcm")
    with pytest.warns(CalidWarning, match="1 item is left out: neither a file nor a folder"):
        assert read_dicom(folder).stack.n_slices == 4


# Damaged and strange files


def test_an_empty_folder(tmp_path):
    refused(tmp_path, InputError, "no DICOM slice in 0 files")


def test_a_missing_path(tmp_path):
    refused(tmp_path / "nothing", InputError, "no such file")


def test_files_that_are_not_dicom(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("Hidden Person, 19510203")
    (tmp_path / "old").write_bytes(b"\x08\x00" + bytes(range(256)))
    refused(tmp_path, InputError, "no DICOM slice in 3 files")
    refused(tmp_path / "notes.txt", InputError, "no DICOM slice in 1 file")


def test_a_file_cut_within_its_header(tmp_path):
    content = encoded(image())
    (tmp_path / "a.dcm").write_bytes(content[: content.find(b"MONOCHROME2") - 40])
    save(short_axis(), tmp_path)
    refused(tmp_path, InputError, "no valid|damaged")


@pytest.mark.parametrize(
    "field",
    ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"],
)
def test_missing_geometry_is_never_guessed(tmp_path, field):
    images = short_axis()
    delattr(images[5], field)
    refused(save(images, tmp_path), InputError, f"has no valid .*{field}")


@pytest.mark.parametrize(
    ("field", "value"),
    [("PixelSpacing", [0, 1]), ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), ("Rows", 0)],
)
def test_impossible_geometry(tmp_path, field, value):
    images = short_axis()
    setattr(images[5], field, value)
    refused(save(images, tmp_path), GeometryError, "impossible orientation, matrix or pixel")


def test_pixels_that_are_cut_off(tmp_path):
    images = short_axis()
    content = encoded(images[5])
    save(images[:5] + images[6:], tmp_path)
    (tmp_path / "cut.dcm").write_bytes(content[:-30])
    refused(tmp_path, InputError, "cut off|damaged")


def test_an_encoding_that_cannot_be_decoded(tmp_path):
    images = short_axis(phases=1)
    for number, data in enumerate(images):
        data.PixelData = encapsulate([b"\xff\x4f\xff\x51 not really a codestream"])
        data["PixelData"].is_undefined_length = True
        data["PixelData"].VR = "OB"
        (tmp_path / f"{number}.dcm").write_bytes(encoded(data, JPEG2000Lossless))
    refused(tmp_path, InputError, "JPEG 2000")


def test_run_length_encoding_is_decoded(tmp_path):
    images = short_axis(phases=1)
    for number in range(4):
        packed = image(10.0 * number, series=10 + number)
        packed.file_meta = FileMetaDataset()
        packed.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        packed.compress(RLELossless, generate_instance_uid=False)
        (tmp_path / f"{number}.dcm").write_bytes(encoded(packed, RLELossless))
    check_is(read_dicom(tmp_path), images, 4)


def test_a_deflated_data_set_is_refused_before_it_grows(tmp_path):
    (tmp_path / "a.dcm").write_bytes(encoded(image(), DeflatedExplicitVRLittleEndian))
    refused(tmp_path, InputError, "deflated")


@pytest.mark.parametrize(
    ("field", "value", "kind", "match"),
    [
        ("PhotometricInterpretation", "MONOCHROME1", IntensityError, "MONOCHROME2"),
        ("RescaleSlope", 0, IntensityError, "rescale slope of 0"),
        ("BitsAllocated", 1, InputError, "8, 16 or 32 bits"),
        ("Rows", 13, InputError, "cut off"),
    ],
)
def test_pixels_that_are_no_grey_values(tmp_path, field, value, kind, match):
    images = short_axis()
    for data in images:
        setattr(data, field, value)
    refused(save(images, tmp_path), kind, match)


def test_a_header_that_claims_too_much(tmp_path):
    images = short_axis()
    for data in images:
        data.Rows = data.Columns = 65535
    refused(save(images, tmp_path), InputError, "claim 96.0 GiB")


def test_a_header_that_claims_too_many_frames(tmp_path):
    data = image()
    data.NumberOfFrames = 2_000_000_000
    (tmp_path / "a.dcm").write_bytes(encoded(data))
    refused(tmp_path, InputError, "claims 2000000000 frames")


def test_what_shows_no_slice_is_left_out(tmp_path):
    images = short_axis()
    phase, colour, shot, report = image(10), image(20), image(30), Dataset()
    phase.ImageType = ["DERIVED", "PRIMARY", "P", "RETRO"]
    colour.SamplesPerPixel = 3
    shot.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    del shot.ImagePositionPatient
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    with pytest.warns(CalidWarning, match="1 (file|image) is left out") as caught:
        found = read_dicom(save([*images, phase, colour, shot, report], tmp_path))
    check_is(found, images, 4)
    reasons = {v.reason for v in found.report.left_out}
    assert reasons == {
        "not a magnitude image (phase or velocity, real or imaginary part)",
        "a colour image",
        "a screenshot (secondary capture)",
        "DICOM without an image",
    }
    assert all(any(reason in str(w.message) for w in caught) for reason in reasons)


@pytest.mark.slow
def test_flipped_bits_never_end_in_a_traceback(tmp_path, caplog):
    """Any byte may be wrong: the answer is a stack or a typed error that names nobody."""
    images = short_axis((0, 10), phases=1)
    good = encoded(images[1])
    save(images[:1], tmp_path)
    generator, said = np.random.default_rng(0), ""
    for _ in range(100):
        content = bytearray(good)
        for place in generator.integers(128, len(good) - 240, 3):
            content[place] = generator.integers(256)
        (tmp_path / "b.dcm").write_bytes(content)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                read(tmp_path)
            except CalidError as error:
                said += f"{error.rule} {error.remedy}"
        said += "".join(str(w.message) for w in caught)
        assert all(issubclass(w.category, CalidWarning) for w in caught)
    assert not caplog.records
    assert not any(secret in said for secret in SECRETS)
    assert "damaged" in said
