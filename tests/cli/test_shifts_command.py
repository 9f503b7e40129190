"""Shifted slices on the command line: told by `inspect` and `reconstruct`, moved if asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import run as calid

from calid.data.phantom import HeartPhantom
from calid.io import write_volume
from calid.stack import SliceStack, Volume

NUMBER = 4


def write(stack: SliceStack, path: Path) -> Path:
    marks = np.ones(stack.n_slices, np.bool_)
    fields = (stack.data, stack.affine, stack.positions, marks, stack.frame_times)
    write_volume(Volume(*fields), path)
    return path


@pytest.fixture(scope="module")
def sound() -> SliceStack:
    return HeartPhantom(8).acquire(gap=10.0)


@pytest.fixture(scope="module")
def moved(sound: SliceStack) -> SliceStack:
    """One slice five rows further down."""
    data = sound.data.copy()
    data[:, NUMBER] = np.roll(data[:, NUMBER], 5, axis=1)
    return replace(sound, data=data)


@pytest.mark.slow
def test_inspect_tells_the_slice_and_the_size(sound, moved, tmp_path, capsys):
    out = tmp_path / "found.json"
    path = write(moved, tmp_path / "a.nii")
    assert calid("inspect", path, "--shifts", "--json", out) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"slice {NUMBER} (counted from 0) by 7." in told
    assert any(f"slice {NUMBER} " in note for note in json.loads(out.read_text())["warnings"])
    assert calid("inspect", write(sound, tmp_path / "b.nii"), "--shifts") == 0
    assert "lies off" not in capsys.readouterr().out


@pytest.mark.slow
def test_reconstruct_tells_it_and_moves_it_back_if_asked(sound, moved, tmp_path, capsys):
    source = write(moved, tmp_path / "a.nii")
    command = ("reconstruct", source, tmp_path / "dense.nii", "--factor", "2", "--device", "cpu")
    assert calid(*command) == 0
    assert f"slice {NUMBER} (counted from 0) by 7." in capsys.readouterr().err
    record = json.loads((tmp_path / "dense.json").read_text())
    assert [(s["slice"], s["moved_pixels"]) for s in record["shifts"]] == [(NUMBER, [0, 0])]
    dense = np.asarray(nib.load(tmp_path / "dense.nii").dataobj).T
    np.testing.assert_array_equal(dense[::2], moved.data[0])

    assert calid(*command, "--fix-shifts") == 0
    assert "moved back" in capsys.readouterr().err
    record = json.loads((tmp_path / "dense.json").read_text())
    assert record["request"]["fix_shifts"] is True
    assert [(s["slice"], s["moved_pixels"]) for s in record["shifts"]] == [(NUMBER, [-5, 0])]
    dense = np.asarray(nib.load(tmp_path / "dense.nii").dataobj).T
    np.testing.assert_array_equal(dense[2 * NUMBER, :-5], sound.data[0, NUMBER, :-5])
