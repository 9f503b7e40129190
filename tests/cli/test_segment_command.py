from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from command_line import run, write_nifti

from calid.io.sidecar import sha256

pytestmark = pytest.mark.usefixtures("untrained")

AFFINE = np.diag([-1.5, -1.5, 10.0, 1.0])
AFFINE[:3, 3] = [40.5, -20.25, 7.0]


def labels_of(frames: int) -> np.ndarray:
    """One heart per frame in NIfTI's axis order, one pixel further in every frame."""
    labels = np.zeros((44, 50, 4, frames), np.uint8)
    for frame in range(frames):
        labels[8 + frame : 30, 10 + frame : 34, :, frame] = 2
        labels[12 + frame : 24, 16 + frame : 28, :, frame] = 3
        labels[30:40, 10 + frame : 34, :, frame] = 1
    return labels


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("frames", [None, 1, 3])
def test_labels_come_on_the_grid_of_the_input(frames, suffix, tmp_path, capsys):
    truth = labels_of(frames or 1)
    truth = truth if frames else truth[..., 0]
    voxels = truth.astype(np.int16) * 100 + 7
    source = write_nifti(tmp_path / f"stack{suffix}", voxels, AFFINE)
    if frames:
        header = nib.load(source).header
        header["toffset"] = 0.02
        nib.save(nib.Nifti1Image(voxels, AFFINE, header), source)
    out = tmp_path / f"labels{suffix}"
    assert run("segment", source, out) == 0
    before, after = nib.load(source), nib.load(out)
    assert after.get_data_dtype() == np.uint8
    assert np.asarray(after.dataobj).dtype == np.uint8, "no slope makes floats of them"
    np.testing.assert_array_equal(np.asarray(after.dataobj), truth)
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-6)
    if frames and frames > 1:
        np.testing.assert_allclose(after.header.get_zooms()[3], 0.05, rtol=1e-6)
    assert after.header["toffset"] == before.header["toffset"]
    assert str(out) in capsys.readouterr().out
    first = out.read_bytes()
    assert run("segment", source, out) == 0
    assert out.read_bytes() == first


def test_the_sidecar_ties_labels_to_their_input_and_weights(tmp_path, untrained):
    source = write_nifti(tmp_path / "name_of_patient.nii.gz", labels_of(1) * 50)
    assert run("segment", source, tmp_path / "labels.nii.gz") == 0
    text = (tmp_path / "labels.json").read_text()
    record = json.loads(text)
    assert record["input"]["sha256"] == sha256(source)
    assert record["input"]["shape"] == [1, 4, 50, 44]
    assert record["labels"] == {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    weights = {"segmentation": sha256(untrained / "segmentation.safetensors")}
    assert record["weights_sha256"] == weights
    assert record["files_sha256"] == {"output": sha256(tmp_path / "labels.nii.gz")}
    assert "name_of_patient" not in text


@pytest.mark.parametrize("output", ["absent/out.nii.gz", "stack.nii.gz", "out.mhd", "."])
def test_bad_outputs_are_refused_before_any_work(output, tmp_path, monkeypatch):
    write_nifti(tmp_path / "stack.nii.gz", labels_of(1))
    monkeypatch.chdir(tmp_path)
    assert run("segment", "stack.nii.gz", output) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["stack.nii.gz"]


def test_without_its_weights_it_says_so_and_writes_nothing(tmp_path, monkeypatch, untrained):
    monkeypatch.undo()
    monkeypatch.setattr("calid.weights.FOLDER", untrained / "absent")
    source = write_nifti(tmp_path / "stack.nii.gz", labels_of(1) * 50)
    assert run("segment", source, tmp_path / "out.nii.gz") == 7
    assert [p.name for p in tmp_path.iterdir()] == ["stack.nii.gz"]
