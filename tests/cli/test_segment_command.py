from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command_line import run as calid
from torch import Tensor, nn

from calid.errors import GeometryError, IntensityError
from calid.io import read
from calid.io.labels import read_labels, write_labels
from calid.io.sidecar import sha256
from calid.runtime import choose_runtime
from calid.segmentation.segment import Segmenter


class Bands(nn.Module):
    """Labels by brightness: a quarter of the window each."""

    def forward(self, images: Tensor) -> Tensor:
        centres = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0])[:, None, None]
        return -200 * (images.float() - centres).square()


@pytest.fixture(autouse=True)
def untrained(tmp_path_factory, monkeypatch) -> Path:
    """A network that needs no training, and a file to take the weights' hash of."""
    folder = tmp_path_factory.mktemp("weights")
    network = folder / "segmentation.safetensors"
    network.write_bytes(b"weights")
    (folder / "SHA256SUMS").write_text(f"{sha256(network)}  {network.name}\n")
    monkeypatch.setattr("calid.weights.FOLDER", folder)
    monkeypatch.setattr(
        "calid.segmentation.segment.load_segmenter",
        lambda device="auto": Segmenter(Bands(), choose_runtime("cpu")),
    )
    return folder


def labels_of(frames: int) -> np.ndarray:
    """One heart per frame in NIfTI's axis order, one pixel further in every frame."""
    labels = np.zeros((44, 50, 4, frames), np.uint8)
    for frame in range(frames):
        labels[8 + frame : 30, 10 + frame : 34, :, frame] = 2
        labels[12 + frame : 24, 16 + frame : 28, :, frame] = 3
        labels[30:40, 10 + frame : 34, :, frame] = 1
    return labels


def write(path: Path, data: np.ndarray) -> Path:
    affine = np.diag([-1.5, -1.5, 10.0, 1.0])
    affine[:3, 3] = [40.5, -20.25, 7.0]
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    if data.ndim == 4:
        image.header["pixdim"][4] = 0.05
        image.header["toffset"] = 0.02
    nib.save(image, path)
    return path


def run(*arguments: object) -> int:
    return calid("segment", *arguments)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("frames", [None, 1, 3])
def test_labels_come_on_the_grid_of_the_input(frames, suffix, tmp_path, capsys):
    truth = labels_of(frames or 1)
    truth = truth if frames else truth[..., 0]
    source = write(tmp_path / f"stack{suffix}", truth.astype(np.int16) * 100 + 7)
    out = tmp_path / f"labels{suffix}"
    assert run(source, out) == 0
    before, after = nib.load(source), nib.load(out)
    assert after.get_data_dtype() == np.uint8
    assert np.asarray(after.dataobj).dtype == np.uint8, "no slope makes floats of them"
    np.testing.assert_array_equal(np.asarray(after.dataobj), truth)
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-6)
    if frames and frames > 1:
        np.testing.assert_allclose(after.header.get_zooms()[3], 0.05, rtol=1e-6)
    if frames:
        assert float(after.header["toffset"]) == pytest.approx(0.02)
    assert str(out) in capsys.readouterr().out


def test_the_sidecar_ties_labels_to_their_input_and_weights(tmp_path, untrained):
    source = write(tmp_path / "name_of_patient.nii.gz", labels_of(1) * 50)
    assert run(source, tmp_path / "labels.nii.gz") == 0
    text = (tmp_path / "labels.json").read_text()
    record = json.loads(text)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert record["input"]["sha256"] == digest
    assert record["input"]["shape"] == [1, 4, 50, 44]
    assert record["labels"] == {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    assert record["weights_sha256"] == {"segmentation": hashlib.sha256(b"weights").hexdigest()}
    assert "name_of_patient" not in text


def test_the_same_input_gives_the_same_bytes(tmp_path):
    source = write(tmp_path / "stack.nii.gz", labels_of(2) * 50)
    outs = [tmp_path / name for name in ("a.nii.gz", "b.nii.gz")]
    assert [run(source, out) for out in outs] == [0, 0]
    assert outs[0].read_bytes() == outs[1].read_bytes()


def text_file(folder: Path) -> Path:
    path = folder / "bad.nii.gz"
    path.write_text("not an image")
    return path


def nan_file(folder: Path) -> Path:
    return write(folder / "bad.nii.gz", np.full((20, 20, 3), np.nan, np.float32))


BAD = {
    "missing": (lambda f: f / "absent.nii.gz", 3),
    "not a NIfTI": (text_file, 3),
    "one slice": (lambda f: write(f / "bad.nii.gz", np.ones((20, 20, 1), np.int16)), 4),
    "NaN": (nan_file, 5),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_typed_error_and_writes_nothing(case, tmp_path, capsys):
    make, expected = BAD[case]
    path = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert run(path, tmp_path / "out.nii.gz") == expected
    assert sorted(tmp_path.iterdir()) == before
    message = capsys.readouterr().err
    assert path.name in message
    assert "Traceback" not in message


@pytest.mark.parametrize("output", ["absent/out.nii.gz", "stack.nii.gz", "out.mhd", "."])
def test_bad_outputs_are_refused_before_any_work(output, tmp_path, monkeypatch):
    write(tmp_path / "stack.nii.gz", labels_of(1))
    monkeypatch.chdir(tmp_path)
    assert run("stack.nii.gz", output) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["stack.nii.gz"]


def test_without_its_weights_it_says_so_and_writes_nothing(tmp_path, monkeypatch, untrained):
    monkeypatch.undo()
    monkeypatch.setattr("calid.weights.FOLDER", untrained / "absent")
    source = write(tmp_path / "stack.nii.gz", labels_of(1) * 50)
    assert run(source, tmp_path / "out.nii.gz") == 7
    assert [p.name for p in tmp_path.iterdir()] == ["stack.nii.gz"]


def test_written_labels_are_read_back_as_they_were(tmp_path):
    stack = read(write(tmp_path / "stack.nii.gz", labels_of(2) * 50))
    labels = np.random.default_rng(0).integers(0, 4, stack.shape).astype(np.uint8)
    write_labels(labels, stack, tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz", stack), labels)
    with pytest.raises(GeometryError):
        write_labels(labels[:1], stack, tmp_path / "part.nii.gz")
    assert not (tmp_path / "part.nii.gz").exists()


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_labels_of_any_type_are_read_as_integers(dtype, tmp_path):
    stack = read(write(tmp_path / "stack.nii.gz", labels_of(1) * 50))
    path = write(tmp_path / "labels.nii.gz", labels_of(1).astype(dtype))
    found = read_labels(path, stack)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels_of(1).T)


@pytest.mark.parametrize("value", [4, -1, 255, 1.5])
def test_values_that_are_no_labels_are_refused(value, tmp_path):
    stack = read(write(tmp_path / "stack.nii.gz", labels_of(1) * 50))
    wrong = labels_of(1).astype(np.float32)
    wrong[3, 4, 1] = value
    with pytest.raises(IntensityError, match=f"value {value:g}"):
        read_labels(write(tmp_path / "labels.nii.gz", wrong), stack)
