"""Times that no heart has are said and read as they make sense, of NIfTI and of DICOM."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from faults.dicom_writer import save as save_dicom
from faults.dicom_writer import short_axis
from nifti_files import as_volume, save, values

from calid.errors import CalidWarning
from calid.io import read_stack, write_volume
from calid.io.dicom import read_dicom

BEAT = {
    # said step and unit, frames: seconds of the step that makes sense
    "ms as s": (33.3, "sec", 25, 0.0333),
    "us as s": (40000.0, "sec", 20, 0.04),
    "us as ms": (40000.0, "msec", 20, 0.04),
    "s as ms": (0.0333, "msec", 30, 0.0333),
    "s as us": (0.05, "usec", 12, 0.05),
    "ms of a short film": (45.0, 0, 5, 0.045),
    "reversed": (-0.03, "sec", 30, 0.03),
    "reversed ms": (-30.0, "sec", 30, 0.03),
    "several beats": (0.05, "sec", 200, 0.05),
    "1 s": (1.0, "sec", 30, 1 / 30),
    "zero": (0.0, "sec", 20, 1 / 20),
    "zero, few frames": (0.0, "sec", 3, 1.0),
    "not a number": (np.nan, "sec", 10, 1 / 10),
}


@pytest.mark.parametrize("case", BEAT)
def test_times_that_no_heart_has_are_said_and_read_as_they_make_sense(case, tmp_path):
    step, unit, frames, expected = BEAT[case]
    path = save(tmp_path / "a.nii", values((4, 4, 2, frames)), time=unit, dt=step)
    with pytest.warns(CalidWarning, match="time between frames"):
        stack = read_stack(path)
    np.testing.assert_allclose(stack.frame_times, np.arange(frames) * expected, rtol=1e-6)
    write_volume(as_volume(stack), tmp_path / "b.nii")
    header = nib.load(tmp_path / "b.nii").header
    assert header["pixdim"][4] == pytest.approx(expected)
    assert header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize(
    ("step", "frames"), [(0.0333, 25), (0.01, 20), (0.1, 30), (0.04, 4), (0.3, 2), (1.0, 3)]
)
def test_times_of_a_heart_are_believed_without_a_word(step, frames, tmp_path):
    path = save(tmp_path / "a.nii", values((4, 4, 2, frames)), dt=step)
    assert np.diff(read_stack(path).frame_times) == pytest.approx(step)


def test_the_first_frame_has_the_unit_of_the_others(tmp_path):
    path = save(tmp_path / "a.nii", values((4, 4, 2, 20)), dt=40.0, toffset=12.0)
    with pytest.warns(CalidWarning, match="taken for another"):
        stack = read_stack(path)
    assert stack.frame_times[0] == pytest.approx(0.012)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "words"),
    [(1e-3, "taken for another"), (1e3, "taken for another"), (60.0, "no unit makes sense")],
)
def test_trigger_times_that_no_heart_has_are_said_and_read_as_they_make_sense(
    scale, words, tmp_path
):
    images = short_axis(phases=12)
    for data in images:
        data.TriggerTime = float(data.TriggerTime) * scale
    save_dicom(images, tmp_path)
    with pytest.warns(CalidWarning, match=words):
        stack = read_dicom(tmp_path).stack
    step = 0.04 if scale != 60 else 1 / 12
    np.testing.assert_allclose(stack.frame_times, np.arange(12) * step, atol=1e-6)


def test_a_cycle_in_microseconds_where_it_should_be_in_milliseconds_is_read(tmp_path):
    images = short_axis(phases=10)
    for data in images:
        data.TemporalPositionIdentifier = 1 + round(float(data.TriggerTime) / 40)
        data.NominalInterval = 900000
        del data.TriggerTime
    save_dicom(images, tmp_path)
    with pytest.warns(CalidWarning, match="taken for another"):
        stack = read_dicom(tmp_path).stack
    np.testing.assert_allclose(stack.frame_times, np.arange(10) * 0.09, atol=1e-6)
