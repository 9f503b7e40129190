"""Nothing generated passes for acquired, and nothing of somebody else's is lost."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import pytest
from command_line import run
from faults.dicom_writer import late_enhancement, short_axis
from faults.dicom_writer import save as save_dicom
from faults.test_odd_inputs import voxels
from nifti_files import save

from calid.io import read
from calid.io.dicom import read_dicom


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return save(tmp_path / "a.nii", voxels(33, 20, 3))


def reconstruct(*arguments: object) -> int:
    return run("reconstruct", *arguments, "--device", "cpu")


@pytest.mark.slow
def test_a_reconstruction_is_no_input_of_another(stack: Path, tmp_path: Path, capsys) -> None:
    dense, again = tmp_path / "b.nii", tmp_path / "c.nii"
    assert reconstruct(stack, dense, "--factor", 2) == 0
    assert reconstruct(dense, again, "--factor", 2) == 3
    assert "It is a reconstruction" in capsys.readouterr().err
    assert not again.exists()
    (tmp_path / "in").mkdir()
    dense.rename(tmp_path / "in" / "b.nii")
    assert run("cohort", tmp_path / "in", tmp_path / "out", "--device", "cpu") == 9
    assert read(tmp_path / "in" / "b.nii").n_slices == 5  # to look at it is no fault
    assert run("inspect", tmp_path / "in" / "b.nii") == 0
    assert "it is a reconstruction" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stack_that_is_not_cut_finer_is_a_stack(stack: Path, tmp_path: Path) -> None:
    assert reconstruct(stack, tmp_path / "b.nii", "--factor", 1) == 0
    assert nib.load(tmp_path / "b.nii").header["descrip"].item() == b"CaLID stack"
    assert reconstruct(tmp_path / "b.nii", tmp_path / "c.nii", "--factor", 1) == 0


@pytest.mark.parametrize("content", ['{"RepetitionTime": 0.03}', "not JSON", "[]"])
def test_a_file_of_somebody_else_is_not_replaced_by_the_record(
    stack: Path, tmp_path: Path, capsys, content: str
) -> None:
    theirs = tmp_path / "b.json"
    theirs.write_text(content)
    assert reconstruct(stack, tmp_path / "b.nii", "--factor", 1) == 6
    assert "b.json" in capsys.readouterr().err
    assert theirs.read_text() == content
    assert not (tmp_path / "b.nii").exists()


@pytest.mark.slow
def test_a_record_of_an_earlier_run_is_replaced(stack: Path, tmp_path: Path) -> None:
    for spacing in (8, 4):
        assert reconstruct(stack, tmp_path / "b.nii", "--spacing", spacing) == 0
    record = json.loads((tmp_path / "b.json").read_text())
    assert record["request"]["spacing_mm"] == 4
    assert record["request"]["region"] == "heart"


def test_two_outputs_of_one_name_are_refused(stack: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "b.nii"
    assert reconstruct(stack, out, "--uncertainty", out) == 6
    assert "Two outputs have this name" in capsys.readouterr().err


@pytest.mark.slow
def test_a_wish_for_fewer_slices_than_there_are_is_answered_with_a_warning(
    stack: Path, tmp_path: Path, capsys
) -> None:
    assert reconstruct(stack, tmp_path / "b.nii", "--spacing", 20) == 0
    assert "none are generated" in capsys.readouterr().err


@pytest.mark.parametrize("trigger", [True, False])
def test_images_of_another_contrast_are_no_frames_of_the_film(
    tmp_path: Path, trigger: bool
) -> None:
    save_dicom(short_axis() + late_enhancement(trigger=trigger), tmp_path)
    with pytest.warns(UserWarning, match=r"1 other contrast is left out \(4 images\)"):
        found = read_dicom(tmp_path)
    assert found.stack.data.shape[:2] == (3, 4)
    assert 80 not in {int(header.SeriesNumber) for row in found.headers for header in row}


def test_echo_times_that_differ_a_little_are_of_one_film(tmp_path: Path) -> None:
    images = short_axis()
    for number, data in enumerate(images):
        data.EchoTime, data.SequenceName = 1.1 + 0.02 * (number % 3), f"*tfi2d1_{12 + number % 2}"
        data.FlipAngle = 60 - 10 * (number // 6)
    save_dicom(images, tmp_path)
    assert read_dicom(tmp_path).stack.data.shape[:2] == (3, 4)
