from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import random_nifti, run

pytestmark = pytest.mark.slow

SETTINGS = ("--factor", "2", "--seed", "5", "--samples", "1", "--steps", "1", "--device", "cpu")
ALONE = ("--workers", "1", "--threads", "1")
CINE = "sub-{0}/anat/sub-{0}_cine"
DERIVED = "sub-{0}/anat/sub-{0}_desc-calid_cine"


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    """Two stacks of three slices, and a file that is none."""
    root = tmp_path_factory.mktemp("bids")
    for subject in ("1", "2", "3"):
        random_nifti(root / f"{CINE.format(subject)}.nii.gz", 64, 64, 3)
    (root / f"{CINE.format('2')}.nii.gz").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def finished(bids, tmp_path_factory) -> tuple[Path, int]:
    out = tmp_path_factory.mktemp("derivatives") / "calid"
    return out, run("cohort", bids, out, *SETTINGS, *ALONE)


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["subject"].split("/")[0]: row for row in csv.DictReader(file)}


def test_a_bad_subject_costs_an_exit_code_and_nothing_else(finished):
    out, code = finished
    assert code == 9
    table = rows(out / "summary.csv")
    assert [row["status"] for row in table.values()] == ["done", "failed", "done"]
    assert table["sub-2"]["exit_code"] == "3"
    assert table["sub-2"]["rule"].endswith(".")
    assert table["sub-1"]["slices"] == "5"
    assert {p.name for p in out.iterdir()} == {
        "summary.csv", "dataset_description.json", ".bidsignore", "sub-1", "sub-3",
    }  # fmt: skip


def test_an_output_is_what_calid_reconstruct_would_write(finished, bids, tmp_path):
    out, _ = finished
    alone = tmp_path / "alone.nii.gz"
    assert run("reconstruct", bids / f"{CINE.format('3')}.nii.gz", alone, *SETTINGS) == 0
    made = out / f"{DERIVED.format('3')}.nii.gz"
    before, after = (np.asarray(nib.load(path).dataobj).astype(int) for path in (alone, made))
    np.testing.assert_array_equal(after[..., ::2], before[..., ::2])
    # Another number of threads may round otherwise.
    assert abs(after - before).max() <= 1
    record = json.loads(made.with_name(made.name.replace(".nii.gz", ".json")).read_text())
    assert record["files_sha256"]["output"] == rows(out / "summary.csv")["sub-3"]["sha256"]
    assert record["request"]["seed"] == 5


def test_resume_does_what_is_missing_or_altered(finished, bids, capsys):
    out, _ = finished
    altered = out / f"{DERIVED.format('1')}.nii.gz"
    kept = out / f"{DERIVED.format('3')}.nii.gz"
    whole, stamp = altered.read_bytes(), kept.stat().st_mtime_ns
    altered.write_bytes(whole[:-1])
    assert run("cohort", bids, out, *SETTINGS, *ALONE, "--resume") == 9
    assert altered.read_bytes() == whole
    assert kept.stat().st_mtime_ns == stamp
    statuses = [row["status"] for row in rows(out / "summary.csv").values()]
    assert statuses == ["done", "failed", "kept"]
    assert "3 subjects: 1 done, 1 kept, 1 failed" in capsys.readouterr().out


def test_a_shard_with_nothing_left_to_do_starts_no_worker(finished, bids, monkeypatch):
    out, _ = finished
    monkeypatch.setattr("calid.cohort.local.LocalEngine.run", None)
    code = run("cohort", bids, out, *SETTINGS, "--resume", "--shard", "3/3")
    assert code == 0
    assert list(rows(out / "summary_shard-3-of-3.csv")) == ["sub-3"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--shard", "0/3"), 2),
        (("--shard", "5/4"), 2),
        (("--shard", "1/4/2"), 2),
        (("--shard", "a"), 2),
        (("--workers", "-1"), 2),
        (("--retries", "-1"), 2),
        (("--num-gpus", "-1"), 2),
        (("--factor", "2", "--spacing", "1.0"), 2),
        (("--address", "auto"), 2),
        (("--device", "tpu"), 2),
        (("--match", "*_bold.nii"), 3),
    ],
)
def test_options_are_refused_before_any_work(options, expected, bids, tmp_path, capsys):
    assert run("cohort", bids, tmp_path / "out", *options) == expected
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_inputs_are_never_outputs(bids):
    before = sorted(bids.rglob("*"))
    assert run("cohort", bids, bids) == 6
    assert run("cohort", bids, bids / f"{CINE.format('1')}.nii.gz") == 6
    assert sorted(bids.rglob("*")) == before
