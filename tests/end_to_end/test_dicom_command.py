"""From a DICOM exam to files that name nobody."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from command_line import run as calid
from faults.dicom_writer import SECRETS, long_axis, pixels, save, save_zip, short_axis

from calid.io.dicom import read_dicom


def run(verb: str, *arguments: object) -> int:
    return calid(verb, *arguments, "--device", "cpu")


@pytest.mark.slow
def test_an_exam_with_a_missing_slice_becomes_an_even_volume(tmp_path, capsys):
    images = short_axis((0, 10, 30), phases=1)
    exam = save_zip(images + long_axis(phases=1), tmp_path / "exam.zip")
    out = tmp_path / "dense.nii.gz"
    assert run("reconstruct", exam, out, "--factor", 2) == 0
    volume = nib.load(out)
    assert volume.shape == (10, 12, 7)
    assert volume.get_data_dtype() == np.uint16
    assert volume.header.get_zooms() == pytest.approx((1.4, 1.6, 5.0))
    dense = np.asarray(volume.dataobj)
    record = json.loads((tmp_path / "dense.json").read_text())
    assert record["output"]["acquired_slices"] == [0, 2, 6]
    for plane, data in zip((0, 2, 6), images, strict=True):
        np.testing.assert_array_equal(dense[..., plane].T, pixels(data))
        across_back_head = np.array(data.ImagePositionPatient, float) * [-1, -1, 1]
        np.testing.assert_allclose(
            (volume.affine @ [0, 0, plane, 1])[:3], across_back_head, atol=1e-3
        )
    shown = capsys.readouterr()
    assert "3 slices 10 to 20 mm apart are now 7, 5 mm apart (4 generated)" in shown.out
    assert "1 other view is left out" in shown.err
    written = (tmp_path / "dense.json").read_bytes() + volume.header.binaryblock
    everything = written.decode(errors="replace") + shown.out + shown.err
    assert not any(secret in everything for secret in SECRETS)


@pytest.mark.slow
def test_jitter_is_stated_beside_the_output(tmp_path, capsys):
    exam = save(short_axis((0, 10.3, 19.8, 30), phases=1), tmp_path / "exam")
    out = tmp_path / "dense.nii"
    assert run("reconstruct", exam, out, "--factor", 2, "--figure", tmp_path / "a.png") == 0
    output = json.loads((tmp_path / "dense.json").read_text())["output"]
    true = np.array(output["slice_positions_mm"])[output["acquired_slices"]]
    np.testing.assert_allclose(true, [0, 10.3, 19.8, 30], atol=1e-4)
    beside = np.array(output["acquired_offsets_mm"])
    assert 0.1 < np.abs(beside).max() < 0.3
    # Where the file shows a slice, plus the stated offset along the normal, is where it is.
    affine = nib.load(out).affine
    step = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    stack = read_dicom_quietly(exam)
    for plane, off, position in zip(output["acquired_slices"], beside, true, strict=True):
        shown_at = (affine @ [0, 0, plane, 1])[:3]
        np.testing.assert_allclose(
            shown_at + off * step, stack.affine[:3, 3] + position * step, atol=1e-3
        )
    assert "beside the even planes" in capsys.readouterr().err


def read_dicom_quietly(path: Path):
    with pytest.warns(UserWarning, match="gaps"):
        return read_dicom(path).stack


@pytest.mark.slow
def test_odd_slices_stop_everything_unless_told(tmp_path, capsys):
    exam = save(short_axis((0, 10, 20))[:-1], tmp_path / "exam")
    out = tmp_path / "dense.nii"
    assert run("reconstruct", exam, out, "--factor", 2) == 4
    assert "has 2 frames, not 3" in capsys.readouterr().err
    assert not out.exists()
    assert run("reconstruct", exam, out, "--factor", 2, "--odd-slices", "leave-out") == 0
    assert nib.load(out).shape == (10, 12, 3, 3)


@pytest.mark.slow
def test_slices_that_were_resampled_in_time_are_told_in_every_output(tmp_path, capsys):
    images = short_axis((0, 10), 4, step=200) + short_axis([20], 5, step=160, series=30)
    exam = save(images, tmp_path / "exam")
    out, series = tmp_path / "dense.nii", tmp_path / "series"
    assert run("reconstruct", exam, out, "--factor", 2, "--dicom", series) == 0
    record = json.loads((tmp_path / "dense.json").read_text())
    assert record["input"]["resampled_slices"] == [{"slice": 2, "frames": 5}]
    said = "the slice at 20.0 mm (series 30) has 5 frames; resampled in cardiac phase to 4"
    assert said in capsys.readouterr().err
    derived = [pydicom.dcmread(path).DerivationDescription for path in sorted(series.iterdir())]
    assert len(derived) == 4 * 5
    told = [how for how in derived if "resampled in time" in how]
    assert len(told) == 4
    assert all("acquired slice 3 of 3" in how for how in told)


def test_labels_of_uneven_slices_do_not_fit_into_nifti(tmp_path, capsys):
    exam = save(short_axis((0, 10, 30), phases=1), tmp_path / "exam")
    assert run("segment", exam, tmp_path / "labels.nii") == 4
    assert "Reconstruct the stack first" in capsys.readouterr().err
    assert not list(tmp_path.glob("labels*"))


@pytest.mark.slow
@pytest.mark.real_data
def test_a_real_exam(real_data):
    path = real_data / "dicom" / "bivme_patient1_sax_4ch_2ch.zip"
    with pytest.warns(UserWarning, match="2 other views are left out"):
        found = read_dicom(path)
    stack = found.stack
    assert stack.shape == (25, 6, 208, 256)
    assert stack.pixel_spacing == pytest.approx((1.40625, 1.40625))
    np.testing.assert_allclose(stack.positions, np.arange(6) * 17.7, atol=2e-3)
    # The corners of the outermost slices, as in their headers, turned to RAS+.
    corners = stack.affine @ [[0, 0], [0, 0], [0, 5], [1, 1]]
    np.testing.assert_allclose(corners[:3, 0], [159.772, 134.36, -125.574], atol=1e-3)
    np.testing.assert_allclose(corners[:3, 1], [202.214, 79.6032, -70.5046], atol=1e-2)
    assert stack.thickness == 6
    assert np.diff(stack.frame_times) == pytest.approx(np.full(24, 0.0332), abs=1e-4)
    assert {(view.reason, view.frames) for view in found.report.left_out} == {("another view", 25)}
