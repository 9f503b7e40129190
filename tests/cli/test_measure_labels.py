"""Manual labels that are in another order, of some frames only, or have gaps."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cli.test_measure_command import ML, model, write
from command_line import run as calid

__all__ = ["model"]  # the fixture of networks that need no training


def round_heart(cavity: int, slices: int = 5) -> np.ndarray:
    rows, columns = np.mgrid[:44, :50]
    labels = np.zeros((44, 50, slices), np.uint8)
    labels[np.hypot(rows - 20, columns - 40) < 7] = 1
    labels[np.hypot(rows - 20, columns - 20) < cavity + 4] = 2
    labels[np.hypot(rows - 20, columns - 20) < cavity] = 3
    return labels


def test_labels_of_another_order_are_told_and_mapped(tmp_path, capsys):
    labels = round_heart(9)
    image = write(tmp_path / "ed.nii", 100 * labels.astype(np.int16))
    right = write(tmp_path / "right.nii", labels)
    other = write(tmp_path / "other.nii", np.array([0, 30, 2, 7], np.uint8)[labels])
    assert calid("measure", image, "--labels", right, "--no-dense") == 0
    expected = capsys.readouterr()
    assert "warning" not in expected.err
    assert calid("measure", image, "--labels", other, "--no-dense") == 5
    command = ("measure", image, "--labels", other, "--no-dense", "--label-map")
    capsys.readouterr()
    assert calid(*command, "LV=7,MYO=2,RV=30") == 0
    assert capsys.readouterr().out == expected.out
    assert calid(*command, "LV=30,MYO=2,RV=7") == 0
    assert "--label-map LV=7,MYO=2,RV=30 reads them so" in capsys.readouterr().err
    assert calid(*command, "LV=7,MYO=2") == 0
    assert "voxels of other labels (30) are background" in capsys.readouterr().err
    assert calid("measure", image, "--label-map", "LV=1") == 2


@pytest.mark.parametrize("named", [(), ("--ed-frame", 1, "--es-frame", 3)])
@pytest.mark.parametrize("dense", [(), ("--no-dense",)])
def test_a_film_is_measured_in_the_frames_that_have_labels(named, dense, tmp_path, capsys):
    whole = np.stack([round_heart(c) for c in (7, 9, 8, 6, 8)], -1)
    labels = whole.copy()
    labels[..., [0, 2, 4]] = 0
    film = write(tmp_path / "film.nii", 100 * whole.astype(np.int16))
    beside = write(tmp_path / "film_gt.nii", labels)
    out = tmp_path / "out"
    assert calid("measure", film, "--labels", beside, *named, *dense, "--out", out) == 0
    assert "2 of 5 frames have labels and are measured: 1, 3" in capsys.readouterr().err
    function = json.loads((out / "measures.json").read_text())["measures"]["sparse"]["function"]
    assert (function["ed_frame"], function["es_frame"]) == (1, 3)
    volumes = [(round_heart(c) == 3).sum() * ML for c in (9, 6)]
    assert [function["lv_edv_ml"], function["lv_esv_ml"]] == pytest.approx(volumes)
    command = ("measure", film, "--labels", beside, "--no-dense", "--ed-frame", 2)
    assert calid(*command) == 8
    assert "those that have one are [1, 3]" in capsys.readouterr().err


def test_a_slice_without_labels_between_others_is_told(tmp_path, capsys):
    labels = round_heart(9)
    image = write(tmp_path / "ed.nii", 100 * labels.astype(np.int16))
    labels[..., 2] = 0
    holed = write(tmp_path / "label.nii", labels)
    assert calid("measure", image, "--labels", holed, "--no-dense") == 0
    assert "LV in slice 2 of frame 0" in capsys.readouterr().err
