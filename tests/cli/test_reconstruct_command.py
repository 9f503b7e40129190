from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from command_line import random_nifti, write_nifti
from command_line import run as calid

from calid.io.sidecar import sha256
from calid.models.store import load_interpolator, save_tensors
from calid.segmentation.segment import Segmenter
from calid.weights import weights_path


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    return random_nifti(tmp_path / "stack.nii.gz", 40, 36, 4)


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
    source = write_nifti(tmp_path / "stack.nii.gz", data)

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
    first = outputs[0].read_bytes()
    assert run(stack_file, outputs[0], "--factor", 2) == 0
    assert outputs[0].read_bytes() == first, "the same seed writes the same bytes"
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
def test_a_film_keeps_its_rank_and_frame_time(tmp_path):
    path = random_nifti(tmp_path / "film.nii", 33, 32, 3, 2, dtype=np.uint8)
    out = tmp_path / "dense.nii"
    film = tmp_path / "beat.gif"
    assert run(path, out, "--factor", 2, "--samples", 0, "--figure", film) == 0
    dense = nib.load(out)
    assert dense.shape == (33, 32, 5, 2)
    np.testing.assert_allclose(dense.header.get_zooms()[3], 0.05, rtol=1e-6)
    data = np.asarray(nib.load(path).dataobj)
    np.testing.assert_array_equal(np.asarray(dense.dataobj)[:, :, ::2], data)
    assert film.read_bytes()[:6] == b"GIF89a"


@pytest.mark.parametrize(
    ("output", "options", "expected"),
    [
        ("absent/out.nii.gz", (), 6),
        ("stack.nii.gz", (), 6),
        ("out.mhd", (), 6),
        (".", (), 6),
        ("out.nii.gz", ("--figure", "cut.gif"), 6),  # of one frame
        ("out.nii.gz", ("--figure", "cut.mp4"), 6),
        ("out.nii.gz", ("--report", "report.txt"), 6),
        ("out.nii.gz", ("--report", "absent/report.html"), 6),
        ("out.nii.gz", ("--report", "out.nii.gz"), 6),
        ("out.nii.gz", ("--dicom", "stack.nii.gz"), 6),
        ("out.nii.gz", ("--dicom", "no/series"), 6),
        ("out.nii.gz", ("--dicom", "."), 6),
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


@pytest.mark.slow
def test_the_series_holds_what_the_nifti_holds_and_joins_the_study_of_its_input(tmp_path, capsys):
    film = random_nifti(tmp_path / "film.nii.gz", 36, 32, 3, 2)
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(film, tmp_path / "first.nii.gz", "--factor", 2, "--dicom", first) == 0
    assert str(first) in capsys.readouterr().out
    dense = np.asarray(nib.load(tmp_path / "first.nii.gz").dataobj)
    images = [pydicom.dcmread(path) for path in sorted(first.iterdir())]
    assert len(images) == 5 * 2
    for number, image in enumerate(images):
        frame, place = divmod(number, 5)
        np.testing.assert_array_equal(image.pixel_array, dense[:, :, place, frame].T)
        assert image.TriggerTime == pytest.approx(50 * frame)
        assert ("generated by CaLID" in image.ImageComments) == (place % 2 == 1)
    assert images[0].SliceThickness == 10

    assert run(first, tmp_path / "second.nii.gz", "--factor", 2, "--dicom", second) == 0
    source = {image.InstanceNumber: image for image in images}
    images = [pydicom.dcmread(path) for path in sorted(second.iterdir())]
    assert len(images) == 9 * 2
    for number, image in enumerate(images):
        frame, place = divmod(number, 9)
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
            assert image[keyword].value == source[1][keyword].value
        assert image.SeriesInstanceUID != source[1].SeriesInstanceUID
        beside = {place // 2, (place + 1) // 2}
        parents = [source[frame * 5 + index + 1] for index in sorted(beside)]
        assert [item.ReferencedSOPInstanceUID for item in image.SourceImageSequence] == [
            parent.SOPInstanceUID for parent in parents
        ]
        if place % 2 == 0:
            np.testing.assert_array_equal(image.pixel_array, parents[0].pixel_array)
