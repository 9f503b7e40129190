from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from calid.cli.main import main
from calid.data.phantom import HeartPhantom
from calid.inference.reconstruct import densify
from calid.io import write_volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stacks")
    for seed in (201, 202, 203):
        stack = HeartPhantom(seed).acquire(gap=10.0, slices=5, start=10.0)
        nothing = lambda *a: np.empty((1, 0, 128, 128), np.float32)  # noqa: E731
        write_volume(densify(stack, nothing, 1), out / f"phantom{seed}_ED.nii.gz")
    return out


def test_evaluate_writes_figures_of_hidden_slices_only(folder, tmp_path, capsys):
    main(
        ["evaluate", str(folder), "--out", str(tmp_path), "--methods", "nearest,linear,calid-mean"]
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["protocol"] == "hidden-slices"
    assert summary["n_subjects"] == 3
    assert summary["n_slices"] == 6  # of 5 slices, 1 and 3 are hidden
    for method in ("nearest", "linear", "calid-mean"):
        interval = summary["methods"][method]["psnr"]
        assert interval["low"] <= interval["mean"] <= interval["high"]
        assert np.isfinite(interval["mean"])
    rows = list(csv.DictReader((tmp_path / "per_subject.csv").read_text().splitlines()))
    assert len(rows) == 12  # three methods and the ceiling
    mean = np.mean([float(r["psnr"]) for r in rows if r["method"] == "linear"])
    assert mean == pytest.approx(summary["methods"]["linear"]["psnr"]["mean"], abs=1e-3)
    assert "| linear |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "examples.png").read_bytes()[:4] == b"\x89PNG"
    assert "linear" in capsys.readouterr().out


def test_errors_of_evaluate_have_their_codes(folder, tmp_path):
    for arguments, code in (
        ((tmp_path / "absent", "--out", tmp_path), 8),
        ((folder, "--out", tmp_path, "--methods", "magic"), 2),
        ((folder, "--out", tmp_path, "--max-subjects", 0), 2),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", *map(str, arguments)])
        assert stop.value.code == code
