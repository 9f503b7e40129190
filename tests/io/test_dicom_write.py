"""A derived series says what it is, where it lies and what it was made of."""

from __future__ import annotations

import shutil
import subprocess
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_volumes import (
    AFFINES,
    RAS_TO_LPS,
    affine_of,
    make_headers,
    make_volume,
    oblique,
    written,
)
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from calid.errors import CalidWarning, GeometryError, IntensityError, OutputError
from calid.io import write_volume
from calid.io.dicom_write import write_dicom
from calid.stack import Intensity


@pytest.mark.parametrize("name", AFFINES)
def test_geometry_and_pixels_come_back_and_agree_with_nifti(name: str, tmp_path: Path) -> None:
    volume = make_volume(AFFINES[name], intensity=Intensity(0.5, -3.0))
    write_dicom(volume, tmp_path / "series", thickness=8.0)
    images = written(tmp_path / "series")
    np.testing.assert_allclose(affine_of(images), volume.affine, atol=1e-9)
    assert [image.InstanceNumber for image in images] == list(range(1, 8))
    for index, image in enumerate(images):
        np.testing.assert_array_equal(image.pixel_array, volume.data[0, index])
        assert (image.SliceThickness, image.SpacingBetweenSlices) == (
            8.0,
            pytest.approx(volume.spacing[0]),
        )

    # An independent reader sees the same volume in the series and in the NIfTI file.
    write_volume(volume, tmp_path / "volume.nii.gz")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in sorted((tmp_path / "series").iterdir())])
    series, nifti = reader.Execute(), sitk.ReadImage(str(tmp_path / "volume.nii.gz"))
    for get in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(series, get)(), getattr(nifti, get)(), atol=2e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(series), sitk.GetArrayFromImage(nifti))


def test_a_series_is_found_and_ordered_by_position(tmp_path: Path) -> None:
    volume = make_volume(AFFINES["oblique"])
    write_dicom(volume, tmp_path / "series")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "series"))
    assert [Path(name).name for name in names] == [f"slice-{n:03d}.dcm" for n in range(1, 8)]


@pytest.mark.parametrize("factor", [3, 1])
def test_slices_beside_the_even_planes_keep_their_places(factor: int, tmp_path: Path) -> None:
    even = 0.2 + 1.5 * np.arange(7)
    true = even.copy()
    true[::factor] += np.array([-0.2, 0.3, 0.0, 0.1, -0.3, 0.3, -0.2])[: len(true[::factor])]
    affine = oblique()
    affine[:3, 2] *= 1.5 / 2.9
    acquired = np.arange(7) % factor == 0
    volume = replace(make_volume(affine), positions=true, acquired=acquired)
    write_dicom(volume, tmp_path / "series", make_headers(volume, start=0.2), thickness=6.0)
    images = written(tmp_path / "series")
    corners = np.array([image.ImagePositionPatient for image in images], float)
    first = RAS_TO_LPS @ affine[:3, 3]
    direction = RAS_TO_LPS @ affine[:3, 2] / 1.5
    np.testing.assert_allclose((corners - first) @ direction, true - 0.2, atol=1e-6)
    np.testing.assert_allclose(
        np.abs(np.diff([i.SliceLocation for i in images])), np.diff(true), atol=1e-6
    )
    assert not any("SpacingBetweenSlices" in image for image in images)


STORED = {
    "uint8": (np.uint8, 0, 255, 0),
    "unsigned beyond 32767": (np.uint16, 0, 65535, 0),
    "signed": (np.int16, -32768, 32767, 1),
    "signed without negatives": (np.int16, 0, 4095, 0),
    "int32 in range": (np.int32, -5, 700, 1),
    "whole floats": (np.float32, -5, 700, 1),
}


@pytest.mark.parametrize("case", STORED)
def test_whole_numbers_stay_as_they_are(case: str, tmp_path: Path) -> None:
    dtype, low, high, signed = STORED[case]
    data = np.random.default_rng(1).integers(low, high, (1, 7, 4, 6), endpoint=True).astype(dtype)
    data[0, 0, 0, :2] = low, high
    volume = make_volume(data=data, intensity=Intensity(2.0, -1.0))
    write_dicom(volume, tmp_path / "series")
    for image, expected in zip(written(tmp_path / "series"), data[0], strict=True):
        np.testing.assert_array_equal(image.pixel_array, expected)
        assert (image.BitsAllocated, image.PixelRepresentation) == (16, signed)
        assert (image.RescaleSlope, image.RescaleIntercept) == (2.0, -1.0)
        assert "quantised" not in image.DerivationDescription


@pytest.mark.parametrize(
    ("dtype", "scale", "slope"),
    [(np.float32, 1e-3, 0.25), (np.float64, 1e6, -3), (np.float16, 1, 1)],
)
def test_floats_are_quantised_within_the_loss_that_is_stated(
    dtype: type, scale: float, slope: float, tmp_path: Path
) -> None:
    data = (np.random.default_rng(2).normal(0.3, 1, (1, 7, 4, 6)) * scale).astype(dtype)
    volume = make_volume(data=data, intensity=Intensity(slope, 7.0))
    with pytest.warns(CalidWarning, match="change by up to") as caught:
        write_dicom(volume, tmp_path / "series")
    stated = float(str(caught[0].message).split("up to ")[1].split(",")[0])
    for image, values in zip(written(tmp_path / "series"), data[0], strict=True):
        units = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        error = np.abs(units - (values.astype(np.float64) * slope + 7.0)).max()
        assert error <= stated * 1.06  # the message has two digits
        assert "quantised to 16 bits" in image.DerivationDescription or "An estimate" in (
            image.DerivationDescription
        )
    assert stated < np.ptp(data.astype(float)) * abs(slope) / 1e5


def test_large_whole_numbers_are_shifted_without_loss(tmp_path: Path) -> None:
    data = np.random.default_rng(3).integers(100_000, 160_000, (1, 7, 4, 6)).astype(np.int32)
    write_dicom(make_volume(data=data), tmp_path / "series")
    for image, expected in zip(written(tmp_path / "series"), data[0], strict=True):
        units = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        np.testing.assert_array_equal(units, expected)
    data[0, 0, 0, :2] = 0, 2**31 - 1
    with pytest.warns(CalidWarning, match="quantised"):
        write_dicom(make_volume(data=data), tmp_path / "wide")


def test_constant_volumes_have_a_window(tmp_path: Path) -> None:
    write_dicom(make_volume(data=np.full((1, 7, 4, 6), 7, np.uint8)), tmp_path / "series")
    image = written(tmp_path / "series")[0]
    assert (image.WindowCenter, image.WindowWidth) == (7.0, 1.0)


@pytest.mark.parametrize("data", [np.full((1, 7, 4, 6), np.nan), np.ones((1, 7, 4, 6), complex)])
def test_values_that_are_not_numbers_are_refused(data: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(IntensityError):
        write_dicom(make_volume(data=data), tmp_path / "series")
    assert not list(tmp_path.iterdir())


def test_a_film_is_frames_times_slices_with_times(tmp_path: Path) -> None:
    volume = make_volume(frames=3)
    write_dicom(volume, tmp_path / "film")
    images = written(tmp_path / "film")
    assert [image.InstanceNumber for image in images] == list(range(1, 22))
    assert len({image.SOPInstanceUID for image in images}) == 21
    assert len({image.SeriesInstanceUID for image in images}) == 1
    for number, image in enumerate(images):
        frame, place = divmod(number, 7)
        np.testing.assert_array_equal(image.pixel_array, volume.data[frame, place])
        assert image.TriggerTime == pytest.approx(10 + 40 * frame)
        assert image.ScanOptions == "CG"
        assert image.TemporalPositionIdentifier == frame + 1
        assert (image.NumberOfTemporalPositions, image.CardiacNumberOfImages) == (3, 3)
        assert image.SliceLocation == images[place].SliceLocation


def test_a_series_joins_the_study_of_its_sources(tmp_path: Path) -> None:
    volume = make_volume(AFFINES["oblique"], frames=2)
    headers = make_headers(volume)
    write_dicom(volume, tmp_path / "series", headers, thickness=6.0)
    images = written(tmp_path / "series")
    source = headers[0][0]
    for number, image in enumerate(images):
        frame, place = divmod(number, 7)
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientBirthDate"):
            assert image[keyword].value == source[keyword].value
        assert image.PatientName == "Müller^Jörg"
        assert image.SeriesInstanceUID != source.SeriesInstanceUID
        assert image.SeriesNumber == 1012
        assert image.SeriesDescription == "CaLID reconstructed cine SA"
        assert list(image.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert image.ContributingEquipmentSequence[0].Manufacturer == "Scanner Ltd"
        # Headers run against the volume: acquired slice 0 is their last one.
        order = headers[frame][::-1]
        parents = [place // 3] if place % 3 == 0 else [place // 3, place // 3 + 1]
        items = image.SourceImageSequence
        assert [i.ReferencedSOPInstanceUID for i in items] == [
            order[parent].SOPInstanceUID for parent in parents
        ]
        assert {i.ReferencedSOPClassUID for i in items} == {MRImageStorage}
        assert image.RepetitionTime == order[parents[0]].RepetitionTime
        assert ("AcquisitionTime" in image) == (place % 3 == 0)
        if place % 3 == 0:
            np.testing.assert_array_equal(image.pixel_array, volume.data[frame, place])
            np.testing.assert_allclose(
                image.ImagePositionPatient, order[place // 3].ImagePositionPatient, atol=1e-4
            )
    text = b"".join(path.read_bytes() for path in (tmp_path / "series").iterdir())
    for word in (b"free text", b"Operator", b"Hospital", b"VENDOR", b"secret"):
        assert word not in text


def test_every_image_says_whether_it_was_generated(tmp_path: Path) -> None:
    write_dicom(make_volume(), tmp_path / "series")
    images = written(tmp_path / "series")
    marks = [
        "acquired slice 1",
        "generated by CaLID between slices 1 and 2",
        "generated by CaLID between slices 1 and 2",
        "acquired slice 2",
        "generated by CaLID between slices 2 and 3",
        "generated by CaLID between slices 2 and 3",
        "acquired slice 3",
    ]
    for image, mark in zip(images, marks, strict=True):
        assert image.ImageComments == f"CaLID reconstructed series: {mark}"
        assert mark in image.DerivationDescription
        assert ("DerivationCodeSequence" in image) == mark.startswith("generated")


def test_without_dicom_input_there_is_an_anonymous_study(tmp_path: Path) -> None:
    volume = make_volume()
    write_dicom(volume, tmp_path / "one")
    images = written(tmp_path / "one")
    # Generated slices refer to the acquired ones of the same series.
    for place, image in enumerate(images):
        if place % 3 == 0:
            assert "SourceImageSequence" not in image
            continue
        beside = images[place // 3 * 3], images[place // 3 * 3 + 3]
        assert [i.ReferencedSOPInstanceUID for i in image.SourceImageSequence] == [
            other.SOPInstanceUID for other in beside
        ]
    assert images[0].PatientName == "CaLID^Anonymous"
    assert images[0].PatientBirthDate == ""
    assert "TriggerTime" not in images[0]

    # The same scan reconstructed otherwise: another series of the same study.
    data = volume.data.copy()
    data[0, 1] += 1
    write_dicom(replace(volume, data=data), tmp_path / "two")
    other = written(tmp_path / "two")
    shared = ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID")
    own = ("SeriesInstanceUID", "SOPInstanceUID")
    assert all(other[0][k].value == images[0][k].value for k in shared)
    assert all(other[0][k].value != images[0][k].value for k in own)
    data = data.copy()
    data[0, 0] += 1
    write_dicom(replace(volume, data=data), tmp_path / "three")
    third = written(tmp_path / "three")
    assert all(third[0][k].value != images[0][k].value for k in (*shared, *own))


def test_equal_volumes_give_equal_bytes(tmp_path: Path) -> None:
    headers = make_headers(make_volume())
    before = deepcopy(headers)
    for name in "ab":
        write_dicom(make_volume(), tmp_path / name, headers)
    assert headers == before
    for first, second in zip(
        sorted((tmp_path / "a").iterdir()), sorted((tmp_path / "b").iterdir()), strict=True
    ):
        assert (first.name, first.read_bytes()) == (second.name, second.read_bytes())


def test_broken_values_of_a_source_do_not_stop_the_output(tmp_path: Path) -> None:
    volume = make_volume()
    headers = make_headers(volume)
    broken = (("PatientAge", "AS", b"fifty years "), ("PatientID", "LO", b"4711" * 30),
              ("RepetitionTime", "DS", b"abc "), ("SeriesNumber", "IS", b"12a "),
              ("EchoTrainLength", "IS", b"1.5 "))  # fmt: skip
    for header in headers[0]:
        for keyword, kind, value in broken:
            tag = pydicom.tag.Tag(keyword)
            header[tag] = RawDataElement(tag, kind, len(value), value, 0, False, True)
        del header.FrameOfReferenceUID, header.ScanningSequence, header.Manufacturer
    write_dicom(volume, tmp_path / "series", headers)
    with pydicom.config.disable_value_validation():
        image = pydicom.dcmread(tmp_path / "series" / "slice-001.dcm")
        assert image.PatientID == "4711" * 30
        assert image.RepetitionTime is None
        assert image.EchoTrainLength is None
        assert image.SeriesNumber == 1000
        assert image.ScanningSequence == "RM"
        assert image.FrameOfReferenceUID.startswith("2.25.")


def test_frames_of_multi_frame_sources_are_named(tmp_path: Path) -> None:
    volume = make_volume()
    headers = make_headers(volume)
    for number, header in enumerate(headers[0], start=1):
        header.SOPInstanceUID, header.ReferencedFrameNumber = "1.2.3", number
    write_dicom(volume, tmp_path / "series", headers)
    items = written(tmp_path / "series")[1].SourceImageSequence
    assert [(i.ReferencedSOPInstanceUID, i.ReferencedFrameNumber) for i in items] == [
        ("1.2.3", 3),
        ("1.2.3", 2),
    ]


def test_headers_of_another_stack_are_refused(tmp_path: Path) -> None:
    volume = make_volume()
    headers = make_headers(volume)
    apart = volume.positions + 9.0 * (np.arange(7) > 2)
    moved = make_headers(replace(volume, positions=apart))
    for wrong in (headers * 2, [headers[0][:2]], moved, [headers[0][:1] * 3]):
        with pytest.raises(GeometryError, match="headers"):
            write_dicom(volume, tmp_path / "series", wrong)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_must_be_empty(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    write_dicom(make_volume(), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == 7
    with pytest.raises(OutputError, match="not empty"):
        write_dicom(make_volume(), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def test_the_folder_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Dataset.save_as
    seen: list[bool] = []

    def full_after_three(self: Dataset, path: Path, **options: object) -> None:
        seen.append((tmp_path / "series").exists())
        if len(seen) > 3:
            raise OSError(28, "No space left on device")
        real(self, path, **options)

    monkeypatch.setattr(Dataset, "save_as", full_after_three)
    with pytest.raises(OutputError, match="No space left"):
        write_dicom(make_volume(), tmp_path / "series")
    assert seen == [False] * 4
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of dicom3tools")
@pytest.mark.parametrize(("frames", "sources"), [(1, False), (2, False), (1, True), (2, True)])
def test_a_validator_finds_no_error(frames: int, sources: bool, tmp_path: Path) -> None:
    volume = make_volume(AFFINES["oblique"], frames=frames)
    headers = make_headers(volume) if sources else None
    write_dicom(volume, tmp_path / "series", headers, thickness=8.0)
    for path in sorted((tmp_path / "series").iterdir())[:2]:
        done = subprocess.run(
            ["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "MRImage" in done.stderr
        assert "Error" not in done.stdout + done.stderr
