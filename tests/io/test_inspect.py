from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from command_line import run as calid
from faults.dicom_writer import SECRETS, image, long_axis, save, short_axis

from calid.errors import InputError
from calid.io.inspect import inspect_input


def run(*arguments: object) -> int:
    return calid("inspect", *arguments)


def test_a_sound_exam(tmp_path):
    found = inspect_input(save(short_axis((0, 10, 20, 40)) + long_axis(), tmp_path))
    facts = found.facts()
    assert facts["error"] is None
    assert facts["format"] == "DICOM"
    stack = facts["stack"]
    assert (stack["slices"], stack["frames"], stack["matrix"]) == (4, 3, [12, 10])
    np.testing.assert_allclose(stack["gaps_mm"], [10, 10, 20], atol=1e-3)
    np.testing.assert_allclose(stack["frame_times_s"], [0, 0.04, 0.08])
    assert stack["axes"] == ["left", "head", "front"]
    assert facts["dicom"]["left_out"][0]["reason"] == "another view"
    # The path is left out of warnings: whoever gets the file does not need it.
    assert facts["warnings"] == [
        "1 other view is left out (3 images)",
        "gaps between slices are 10 to 20 mm. Is a slice missing?",
    ]


def test_an_exam_with_an_odd_slice_is_described_all_the_same(tmp_path):
    images = short_axis()
    found = inspect_input(save(images[:-1], tmp_path))
    assert found.stack is None
    facts = found.facts()
    assert "has 2 frames, not 3" in facts["error"]["rule"]
    assert facts["dicom"]["problems"] == ["The slice at 30.0 mm (series 13) has 2 frames, not 3."]
    assert len(facts["dicom"]["kept"]) == 3
    assert inspect_input(tmp_path, odd_slices="leave-out").stack.n_slices == 3


def test_a_nifti_stack(tmp_path):
    data = np.random.default_rng(0).integers(0, 9, (8, 9, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([1.5, 1.5, 9, 1])), tmp_path / "a.nii")
    facts = inspect_input(tmp_path / "a.nii").facts()
    assert facts["dicom"] is None
    assert facts["stack"]["positions_mm"] == [0, 9, 18]
    assert facts["stack"]["axes"] == ["right", "front", "head"]
    with pytest.raises(InputError):
        inspect_input(tmp_path / "b.nii")


def test_what_reading_warns_about_is_told(tmp_path, capsys):
    data = np.random.default_rng(0).integers(0, 9, (8, 9, 3)).astype(np.float32)
    data[..., 1] = 0
    data[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(data, np.diag([1.5, 1.5, 9, 1])), tmp_path / "a.nii")
    assert run(tmp_path / "a.nii") == 5
    assert run(tmp_path / "a.nii", "--fill", 0) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 of 3 images have the same value" in shown
    assert "1 voxels were NaN or infinite and are now 0" in shown
    exam = save(short_axis(), tmp_path / "exam")
    assert run(exam, "--fill", 0) == 2
    assert run(exam, "--max-bytes", 100) == 3


def test_the_command_tells_everything_and_names_nobody(tmp_path, capsys):
    save(short_axis((0, 10, 20, 40)) + long_axis(), tmp_path / "exam")
    out = tmp_path / "found.json"
    assert run(tmp_path / "exam", "--json", out) == 0
    shown = capsys.readouterr()
    for text in ("4, 10 to 20 mm apart, 8 mm thick", "3, 0 to 80 ms, by trigger time",
                 "12 rows x 10 columns of 1.6 x 1.4 mm", "another view", "70", "20.00",
                 "Is a slice missing?", "15 images in 15 files"):  # fmt: skip
        assert text in shown.out
    assert str(out) in shown.out
    content = json.loads(out.read_text())
    assert content["stack"]["slices"] == 4
    everything = shown.out + shown.err + out.read_text()
    assert not any(secret in everything for secret in SECRETS)


def test_the_command_fails_as_reading_would(tmp_path, capsys):
    save([*short_axis(), image(10, 0, series=11)], tmp_path / "exam")
    out = tmp_path / "found.json"
    assert run(tmp_path / "exam", "--json", out) == 4
    shown = capsys.readouterr()
    assert "problem The slice at 10.0 mm (series 11) has 1 image of the same time" in shown.out
    assert "--odd-slices leave-out" in shown.err
    assert json.loads(out.read_text())["stack"] is None
    assert run(tmp_path / "exam", "--odd-slices", "leave-out") == 0
    assert "left out" in capsys.readouterr().out


def test_an_exam_without_any_slice(tmp_path, capsys):
    (tmp_path / "exam").mkdir()
    (tmp_path / "exam" / "notes.txt").write_text("no image")
    assert run(tmp_path / "exam") == 3
    shown = capsys.readouterr()
    assert "not DICOM" in shown.out
    assert "no DICOM slice in 1 file" in shown.err


def test_the_scale_is_shown_when_there_is_one(tmp_path, capsys):
    images = short_axis(phases=1)
    for data in images:
        data.RescaleSlope, data.RescaleIntercept = 2.5, -7
    assert run(save(images, tmp_path)) == 0
    assert "times 2.5 plus -7" in " ".join(capsys.readouterr().out.split())


def test_json_is_not_written_over_the_input(tmp_path):
    save(short_axis(), tmp_path / "exam")
    assert run(tmp_path / "exam", "--json", tmp_path / "missing" / "a.json") == 6
    assert run(tmp_path / "exam", "--json", tmp_path / "a.txt") == 6


def test_an_odd_header_is_no_matter_for_a_library_to_speak_of(tmp_path, caplog):
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([1, 1, 8, 1]))
    image.to_filename(path)
    content = bytearray(path.read_bytes())
    content[252:254] = (16).to_bytes(2, "little")  # qform_code, of which there are five
    path.write_bytes(content)
    assert inspect_input(path).stack is not None
    assert caplog.messages == []
