from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command_line import run as calid

from calid.io.sidecar import sha256
from calid.models.store import load_interpolator, save_tensors
from calid.segmentation.segment import Segmenter
from calid.weights import weights_path


def write(path: Path, data: np.ndarray, spacing=(1.5, 1.5, 10.0)) -> Path:
    image = nib.Nifti1Image(data, np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    if data.ndim == 4:
        image.header["pixdim"][4] = 0.05
    nib.save(image, path)
    return path


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    data = np.random.default_rng(0).integers(0, 400, (40, 36, 4)).astype(np.int16)
    return write(tmp_path / "stack.nii.gz", data)


def run(*arguments: object) -> int:
    return calid("reconstruct", *arguments, "--device", "cpu", "--steps", "1")


@pytest.mark.slow
def test_a_stack_becomes_dense_with_its_slices_untouched(stack_file, tmp_path, capsys):
    out, spread, picture = (tmp_path / n for n in ("dense.nii.gz", "std.nii.gz", "cut.png"))
    code = run(stack_file, out, "--factor", 3, "--samples", 2, "--uncertainty", spread,
               "--figure", picture, "--seed", 4)  # fmt: skip
    assert code == 0
    before, after = nib.load(stack_file), nib.load(out)
    assert after.shape == (40, 36, 10)
    assert after.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(after.dataobj)[..., ::3], np.asarray(before.dataobj))
    np.testing.assert_allclose(after.header.get_zooms(), (1.5, 1.5, 10 / 3), rtol=1e-6)
    record = json.loads((tmp_path / "dense.json").read_text())
    assert record["output"]["acquired_slices"] == [0, 3, 6, 9]
    assert record["output"]["generated_slices"] == [1, 2, 4, 5, 7, 8]
    assert record["settings"]["seed"] == 4
    assert record["settings"]["preset"] == "default"
    assert len(record["weights_sha256"]["default"]) == 64
    assert np.asarray(nib.load(spread).dataobj).shape == (40, 36, 10)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert str(out) in capsys.readouterr().out


@pytest.mark.slow
def test_networks_generate_around_the_heart_unless_told_otherwise(tmp_path, monkeypatch):
    data = np.zeros((160, 144, 3), np.int16)
    data[::5] = 40
    data[60:90, 50:80] = 400
    source = write(tmp_path / "stack.nii.gz", data)

    def label(self: Segmenter, images: torch.Tensor) -> torch.Tensor:
        return 3 * (images[:, 0] > 0.9).long()

    monkeypatch.setattr(Segmenter, "classes", label)
    regions = []
    for options in ((), ("--region", "whole"), ("--samples", 1)):
        assert run(source, tmp_path / "dense.nii.gz", "--factor", 2, *options) == 0
        record = json.loads((tmp_path / "dense.json").read_text())
        regions.append(record["output"]["region"])
        assert ("segmentation" in record["weights_sha256"]) == (regions[-1] is not None)
    assert regions[1:] == [None, None]
    for name, (low, high), size in (("rows", (50, 80), 144), ("columns", (60, 90), 160)):
        first, last = regions[0][name]
        assert 0 <= first < low - 5
        assert high + 5 < last <= size


@pytest.mark.slow
def test_weights_of_ones_own_are_used_and_recorded(stack_file, tmp_path):
    own = load_interpolator(weights_path("default"), "default")
    with torch.no_grad():
        for parameter in own.tau_1.parameters():
            parameter.mul_(0.5)
    folder = tmp_path / "own"
    folder.mkdir()
    save_tensors(own, "interpolator", own.config, {}, folder / "default.safetensors")
    outputs = [tmp_path / "released.nii.gz", tmp_path / "own.nii.gz"]
    assert run(stack_file, outputs[0], "--factor", 2) == 0
    assert run(stack_file, outputs[1], "--factor", 2, "--weights", folder) == 0
    images = [np.asarray(nib.load(path).dataobj) for path in outputs]
    np.testing.assert_array_equal(images[0][..., ::2], images[1][..., ::2])
    assert (images[0][..., 1::2] != images[1][..., 1::2]).mean() > 0.1
    hashes = json.loads((tmp_path / "own.json").read_text())["weights_sha256"]
    assert hashes == {
        "autoencoder": sha256(weights_path("autoencoder")),
        "default": sha256(folder / "default.safetensors"),
    }
    assert run(stack_file, outputs[1], "--weights", tmp_path / "nowhere") == 7


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes(stack_file, tmp_path):
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    assert run(stack_file, first, "--factor", 2) == 0
    assert run(stack_file, second, "--factor", 2) == 0
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_a_film_keeps_its_rank_and_frame_time(tmp_path):
    data = np.random.default_rng(0).integers(0, 400, (33, 32, 3, 2)).astype(np.uint8)
    path = write(tmp_path / "film.nii", data, (1.5, 1.5, 8.0))
    out = tmp_path / "dense.nii"
    film = tmp_path / "beat.gif"
    assert run(path, out, "--factor", 2, "--samples", 0, "--figure", film) == 0
    dense = nib.load(out)
    assert dense.shape == (33, 32, 5, 2)
    np.testing.assert_allclose(dense.header.get_zooms()[3], 0.05, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(dense.dataobj)[:, :, ::2], data)
    assert film.read_bytes()[:6] == b"GIF89a"


def nan_file(folder: Path) -> Path:
    data = np.ones((20, 20, 3), np.float32)
    data[3, 4, 1] = np.nan
    return write(folder / "bad.nii.gz", data)


def text_file(folder: Path) -> Path:
    path = folder / "bad.nii.gz"
    path.write_text("not an image")
    return path


BAD = {
    "missing": (lambda f: f / "absent.nii.gz", 3),
    "not a NIfTI": (text_file, 3),
    "one slice": (lambda f: write(f / "bad.nii.gz", np.ones((20, 20, 1), np.int16)), 4),
    "2D": (lambda f: write(f / "bad.nii.gz", np.ones((20, 20), np.int16)), 4),
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
    assert len(message.strip().splitlines()) >= 3


@pytest.mark.parametrize(
    ("output", "options", "expected"),
    [
        ("absent/out.nii.gz", (), 6),
        ("stack.nii.gz", (), 6),
        ("out.mhd", (), 6),
        (".", (), 6),
        ("out.nii.gz", ("--figure", "cut.gif"), 6),  # of one frame
        ("out.nii.gz", ("--figure", "cut.mp4"), 6),
        ("out.nii.gz", ("--factor", 2, "--spacing", 1.0), 2),
        ("out.nii.gz", ("--factor", 0), 2),
        ("out.nii.gz", ("--uncertainty", "std.nii.gz", "--samples", 1), 2),
        ("out.nii.gz", ("--device", "tpu"), 2),
    ],
)
def test_bad_outputs_and_options_are_refused_before_any_work(
    stack_file, tmp_path, monkeypatch, capsys, output, options, expected
):
    monkeypatch.chdir(tmp_path)
    assert calid("reconstruct", "stack.nii.gz", output, *options) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stack.nii.gz"]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/version").exists(), reason="needs /proc")
def test_a_folder_that_cannot_be_written_is_refused(stack_file):
    # /proc refuses new files even to root.
    assert run(stack_file, "/proc/out.nii.gz") == 6


def test_the_paper_preset_has_no_mean_and_says_so(stack_file, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    code = run(stack_file, tmp_path / "out.nii.gz", "--preset", "paper", "--samples", 0)
    assert code == 2
    assert "--preset default" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
