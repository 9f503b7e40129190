from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from faults.dicom_writer import (
    OBLIQUE,
    encoded,
    enhanced,
    image,
    long_axis,
    pixels,
    save,
    save_zip,
    short_axis,
)
from pydicom import Dataset
from pydicom.dataelem import DataElement

from calid.errors import CalidWarning, GeometryError, InputError, UsageError
from calid.io import is_dicom, read
from calid.io.dicom import open_dicom, read_dicom
from calid.stack import Intensity


def write(data: Dataset, path: Path) -> Path:
    path.write_bytes(encoded(data))
    return path


def test_every_voxel_is_where_dicom_says(tmp_path):
    """The formula of the standard (C.7.6.2.1.1), turned from left-back-head to RAS+."""
    images = short_axis(phases=1)
    stack = read(save(images, tmp_path))
    for slice_, data in enumerate(images):
        across, down = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
        row_step, column_step = map(float, data.PixelSpacing)
        for row, column in ((0, 0), (11, 0), (0, 9), (7, 4)):
            place = np.array(data.ImagePositionPatient, float)
            place = place + across * column_step * column + down * row_step * row
            found = stack.affine @ [column, row, slice_, 1]
            np.testing.assert_allclose(found[:3], place * [-1, -1, 1], atol=1e-4)
    assert stack.pixel_spacing == pytest.approx((1.6, 1.4))
    assert np.linalg.det(stack.affine[:3, :3]) > 0


def test_stored_values_and_fields_are_kept(tmp_path):
    stack = read(save(short_axis(), tmp_path))
    assert stack.data.dtype == np.uint16
    assert stack.intensity == Intensity()
    assert stack.thickness == 8
    assert stack.rank == 4
    assert stack.source == str(tmp_path)


def test_a_still_is_a_stack_of_one_frame_at_its_trigger_time(tmp_path):
    stack = read(save([image(z, 7, series=z) for z in (0, 10, 20)], tmp_path))
    assert stack.shape == (1, 3, 12, 10)
    assert stack.rank == 3
    np.testing.assert_allclose(stack.frame_times, [0.28])


def test_headers_belong_to_their_images_and_hold_no_pixels(tmp_path):
    images = short_axis()
    found = read_dicom(save(images, tmp_path, shuffle=3))
    assert (len(found.headers), len(found.headers[0])) == (3, 4)
    for number, data in enumerate(images):
        header = found.headers[number % 3][number // 3]
        assert header.SOPInstanceUID == data.SOPInstanceUID
        assert "PixelData" not in header
        assert header.PatientName == "Hidden^Person"


# One file, many files, a zip


@pytest.mark.parametrize("order", ["slices first", "shuffled"])
def test_an_enhanced_file_is_the_same_stack(tmp_path, order):
    images = short_axis()
    mixed = images if order == "slices first" else [images[i] for i in (np.arange(12) * 5) % 12]
    path = write(enhanced(mixed), tmp_path / "enhanced")
    found, classic = read_dicom(path), read_dicom(save(images, tmp_path / "classic"))
    np.testing.assert_array_equal(found.stack.data, classic.stack.data)
    np.testing.assert_allclose(found.stack.affine, classic.stack.affine)
    np.testing.assert_allclose(found.stack.positions, classic.stack.positions)
    np.testing.assert_allclose(found.stack.frame_times, classic.stack.frame_times)
    assert found.stack.thickness == 8
    header = found.headers[2][1]
    np.testing.assert_allclose(header.ImagePositionPatient, images[3].ImagePositionPatient)
    assert header.NominalCardiacTriggerDelayTime == 80
    assert "PerFrameFunctionalGroupsSequence" not in header


def test_one_enhanced_file_a_slice(tmp_path):
    images = short_axis()
    for place in range(4):
        write(enhanced(images[3 * place : 3 * place + 3]), tmp_path / f"{place}.dcm")
    stack = read(tmp_path)
    assert stack.shape == (3, 4, 12, 10)
    np.testing.assert_array_equal(stack.data[2, 3], pixels(images[11]))


def test_a_film_a_file_without_functional_groups(tmp_path):
    images = short_axis()
    for place in range(4):
        film = images[3 * place]
        film.NumberOfFrames, film.FrameTime = 3, 35
        film.PixelData = b"".join(i.PixelData for i in images[3 * place : 3 * place + 3])
        write(film, tmp_path / f"{place}.dcm")
    found = read_dicom(tmp_path)
    np.testing.assert_allclose(found.stack.frame_times, [0, 0.035, 0.07])
    np.testing.assert_array_equal(found.stack.data[1, 2], pixels(images[7]))
    assert found.report.time_from == "frame time"


def test_groups_and_frames_must_agree(tmp_path):
    data = enhanced(short_axis())
    data.NumberOfFrames = 11
    path = write(data, tmp_path / "a.dcm")
    with pytest.raises(InputError, match="claims 11 frames and describes 12"):
        read(path)


def test_a_zip_is_the_same_as_a_folder(tmp_path):
    images = short_axis()
    packed = read(save_zip(images, tmp_path / "exam.zip"))
    np.testing.assert_array_equal(packed.data, read(save(images, tmp_path / "exam")).data)
    renamed = save_zip(images, tmp_path / "exported")
    np.testing.assert_array_equal(read(renamed).data, packed.data)


def test_files_without_preamble_are_read(tmp_path):
    images = short_axis(phases=1)
    for number, data in enumerate(images):
        content = encoded(data)
        start = content.find(b"\x08\x00\x08\x00CS")  # the first field after the preamble
        (tmp_path / f"{number}").write_bytes(content[start:])
    stack = read(tmp_path)
    np.testing.assert_array_equal(stack.data[0, 1], pixels(images[1]))


def test_what_is_read_as_dicom(tmp_path):
    assert is_dicom(tmp_path)
    assert is_dicom(tmp_path / "missing.dcm")
    assert is_dicom(write(image(), tmp_path / "IM0001"))
    assert not is_dicom(write(image(), tmp_path / "stack.nii"))
    assert not is_dicom(tmp_path / "missing")


def test_options_of_nifti_are_refused(tmp_path):
    save(short_axis(), tmp_path)
    with pytest.raises(UsageError, match="--spacing-from"):
        read(tmp_path, spacing_from="pixdim")
    with pytest.raises(UsageError, match="no such choice"):
        read(tmp_path, odd_slices="keep")
    with pytest.raises(UsageError, match="positive thickness"):
        read(tmp_path, thickness=-1)
    assert read(tmp_path, thickness=6).thickness == 6


# Time


def without(*keywords: str, **fields: object) -> list[Dataset]:
    images = short_axis()
    for data in images:
        for keyword in keywords:
            delattr(data, keyword)
        for keyword, value in fields.items():
            setattr(data, keyword, value)
    return images


def test_times_of_a_phase_are_the_median_over_slices(tmp_path):
    images = short_axis()
    for number, data in enumerate(images):
        place, phase = divmod(number, 3)
        data.TriggerTime = phase * [38, 40, 41, 47][place]
    found = read_dicom(save(images, tmp_path, shuffle=1))
    np.testing.assert_allclose(found.stack.frame_times, [0, 0.0405, 0.081])
    assert found.report.time_spread_s == pytest.approx(0.018)
    assert found.report.time_from == "trigger time"
    np.testing.assert_array_equal(found.stack.data[2, 3], pixels(images[11]))


def positions(phase: int) -> dict[str, object]:
    return {"TemporalPositionIdentifier": phase + 1}


@pytest.mark.parametrize(
    ("fields", "absent", "clock", "step", "said"),
    [
        (lambda phase: {"TemporalPositionTimeOffset": phase * 0.05}, (),
         "temporal position offset", 0.05, None),
        (positions, (), "temporal position", 0.8 / 3, None),
        (lambda phase: positions(phase) | {"HeartRate": 120}, ("NominalInterval",),
         "temporal position", 0.5 / 3, None),
        (positions, ("NominalInterval",),
         "temporal position", 1 / 3, "heart cycle is not known; 1 s is used"),
        (lambda phase: {}, (), "instance number", 0.8 / 3, "in the order of InstanceNumber"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("trigger", ["missing", "constant"])
def test_other_fields_tell_the_time(tmp_path, fields, absent, clock, step, said, trigger):
    more = {"TriggerTime": 0} if trigger == "constant" else {}
    images = without(*absent, *(() if more else ("TriggerTime",)), **more)
    for number, data in enumerate(images):
        for keyword, value in fields(number % 3).items():
            setattr(data, keyword, value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_dicom(save(images, tmp_path, shuffle=2))
    assert found.report.time_from == clock
    np.testing.assert_allclose(found.stack.frame_times, np.arange(3) * step)
    # Times that the cycle was cut into do not say how much of it the frames cover.
    assert found.stack.cycle == (None if clock in ("temporal position", "instance number") else 0.8)
    np.testing.assert_array_equal(found.stack.data[1, 2], pixels(images[7]))
    notes = [str(w.message) for w in caught]
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]


def test_instance_numbers_of_different_series_are_not_compared(tmp_path):
    images = without("TriggerTime")
    for number, data in enumerate(images):
        data.SeriesInstanceUID = f"1.2.826.0.1.{number}"
    with pytest.raises(GeometryError, match="two stacks of 4 slices"):
        read(save(images, tmp_path))


def test_a_frame_that_all_slices_lack_is_said(tmp_path):
    images = [d for d in short_axis(phases=5) if d.TriggerTime != 80]
    with pytest.warns(CalidWarning, match="0.04 to 0.08 s apart; is a frame missing"):
        stack = read(save(images, tmp_path))
    np.testing.assert_allclose(stack.frame_times, [0, 0.04, 0.12, 0.16])


# Scale


def test_one_scale_for_all_is_kept_apart_from_stored_values(tmp_path):
    images = without(RescaleSlope=2.5, RescaleIntercept=-7)
    stack = read(save(images, tmp_path))
    assert stack.intensity == Intensity(2.5, -7)
    assert stack.data.dtype == np.uint16


@pytest.mark.parametrize("many", [False, True])
def test_a_scale_for_each_slice_is_applied_and_can_be_undone(tmp_path, many):
    images = short_axis()
    slopes = [0.37, 1.1, 2.345678, 0.9]
    for number, data in enumerate(images):
        data.RescaleSlope, data.RescaleIntercept = slopes[number // 3], 0
    path = write(enhanced(images), tmp_path / "a.dcm") if many else save(images, tmp_path)
    stack = read(path)
    assert stack.data.dtype == np.float32
    assert stack.intensity == Intensity()
    for place, slope in enumerate(slopes):
        stored = pixels(images[3 * place])
        np.testing.assert_allclose(stack.data[0, place], stored * slope, rtol=1e-6)
        np.testing.assert_array_equal(np.rint(stack.data[0, place] / slope), stored)


def test_a_scale_that_float32_cannot_undo_is_float64(tmp_path):
    images = short_axis(phases=1)
    for number, data in enumerate(images):
        data.RescaleSlope, data.RescaleIntercept = 1e-6, 1000 + number
    stack = read(save(images, tmp_path))
    assert stack.data.dtype == np.float64
    np.testing.assert_array_equal(np.rint((stack.data[0, 2] - 1002) / 1e-6), pixels(images[2]))


@pytest.mark.parametrize("raw", [False, True])
def test_the_scale_slope_of_philips_makes_series_comparable(tmp_path, raw):
    images = short_axis(phases=1)
    for number, data in enumerate(images):
        data.RescaleSlope, data.RescaleIntercept = 2, 6
        block = data.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        scale = np.float32(0.25 * (number + 1))
        block.add_new(0x0E, "UN" if raw else "FL", scale.tobytes() if raw else float(scale))
    stack = read(save(images, tmp_path))
    expected = (pixels(images[3]) * 2.0 + 6) / (2 * 1.0)
    np.testing.assert_allclose(stack.data[0, 3], expected, rtol=1e-6)
    np.testing.assert_allclose(stack.data[0, 0], (pixels(images[0]) + 3) / 0.25, rtol=1e-6)


def test_a_strange_scale_slope_is_not_used(tmp_path):
    images = short_axis(phases=1)
    for number, data in enumerate(images):
        block = data.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "LO", f"text {number}")
    assert read(save(images, tmp_path)).intensity == Intensity()


def test_signed_and_unsigned_files_meet_in_a_type_that_holds_both(tmp_path):
    images = short_axis(phases=1)
    images[1].PixelRepresentation = 1
    stack = read(save(images, tmp_path))
    assert stack.data.dtype == np.int32
    np.testing.assert_array_equal(stack.data[0, 1], pixels(images[1]))


# What is said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"SliceThickness": None}, "slice thickness is missing; slices are taken to touch"),
        ({"SliceThickness": 7.0}, "slices are 7 to 8 mm thick; 8 mm is used"),
        ({"FrameOfReferenceUID": "1.2.3"}, "2 frames of reference"),
    ],
)
def test_doubtful_headers_are_said(tmp_path, fields, said):
    images = short_axis()
    for data in images[:3]:
        for keyword, value in fields.items():
            setattr(data, keyword, value)
    with pytest.warns(CalidWarning, match=said):
        stack = read(save(images, tmp_path))
    assert stack.thickness == pytest.approx(10 if "missing" in said else 8)


def test_a_small_shift_in_plane_is_said(tmp_path):
    centre = np.array([20, -30, 40]) + OBLIQUE @ [0.5, 0, 0]
    images = [*short_axis(phases=1)[:3], image(30, centre=centre, series=13)]
    with pytest.warns(CalidWarning, match="shifted in-plane by up to 0.5 mm"):
        read(save(images, tmp_path))


def test_a_constant_image_is_said(tmp_path):
    images = short_axis()
    for data in images:
        data.PixelData = bytes(240)
    with pytest.warns(CalidWarning, match="all voxels have the same value") as caught:
        read(save(images, tmp_path))
    assert len(caught) == 1


def test_values_that_only_other_programs_read_may_be_wrong(tmp_path):
    images = short_axis()
    for data in images:
        data[0x00101030] = DataElement(0x00101030, "LO", "no number")
        data[0x00101030].VR = "DS"  # PatientWeight
    assert read(save(images, tmp_path)).n_slices == 4


def test_the_report_is_made_without_decoding(tmp_path):
    save(short_axis() + long_axis(), tmp_path)
    with open_dicom(tmp_path) as exam:
        assert exam.error is None
        assert [s.position_mm for s in exam.report.kept] == pytest.approx([0, 10, 20, 30], abs=1e-3)
        assert [s.frames for s in exam.report.kept] == [3] * 4
        assert exam.report.files == exam.report.images == 15
