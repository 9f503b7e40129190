"""`calid evaluate` from the command line to the files that it leaves."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import run, write_nifti
from faults import dicom_writer

from calid.baselines.rules import linear
from calid.data.phantom import HeartPhantom
from calid.evaluation import methods
from calid.inference.densify import densify
from calid.inference.model import Model
from calid.io import write_volume
from calid.segmentation import segment

pytestmark = pytest.mark.slow

FIELD, SLICES, GAP, START = 96.0, 5, 10.0, 10.0
METHODS = ("nearest", "linear", "calid-mean")


def acquire(seed: int, path: Path) -> None:
    """Thin slices without noise."""
    stack = HeartPhantom(seed).acquire(
        gap=GAP, slices=SLICES, start=START, field_of_view=FIELD, thickness=0.0, noise=0.0
    )
    write_volume(densify(stack, linear, 1), path)


def true_labels(seed: int, phase: float) -> np.ndarray:
    """Of the slices of `acquire`, ``(slices, height, width)``."""
    pixels = (np.arange(64) - 31.5) * 1.5
    z = START + GAP * np.arange(SLICES)
    return HeartPhantom(seed).label(pixels, pixels[:, None], z[:, None, None], phase)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stacks")
    for seed in (201, 202):
        acquire(seed, out / f"phantom{seed}_ED.nii.gz")
    return out


@pytest.fixture(scope="module")
def evaluated(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the first run."""
    out = tmp_path_factory.mktemp("results") / "made" / "by calid"
    assert run("evaluate", folder, "--out", out, "--methods", ",".join(METHODS)) == 0
    return out


def kept(out: Path) -> dict[Path, int]:
    """Files of answers and when they were written."""
    files = [p for p in (out / "predictions").rglob("*") if p.is_file()]
    return {p: p.stat().st_mtime_ns for p in files}


def summary_of(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def test_evaluate_writes_figures_of_hidden_slices_only(evaluated):
    summary = summary_of(evaluated)
    assert summary["protocol"] == "hidden-slices"
    assert summary["n_subjects"] == 2
    assert summary["n_images"] == 4  # of 5 slices, 1 and 3 are hidden
    assert list(summary["methods"]) == sorted([*METHODS, "autoencoder"])
    for method in METHODS:
        interval = summary["methods"][method]["psnr"]
        assert interval["low"] <= interval["mean"] <= interval["high"]
        assert np.isfinite(interval["mean"])
    assert summary["ceilings"] == ["autoencoder"]
    assert summary["splits"] == {}  # all gaps are alike, and no slice is in the middle
    rows = list(csv.DictReader((evaluated / "per_subject.csv").read_text().splitlines()))
    assert len(rows) == 8  # three methods and the ceiling
    mean = np.mean([float(r["psnr"]) for r in rows if r["method"] == "linear"])
    assert mean == pytest.approx(summary["methods"]["linear"]["psnr"]["mean"], abs=1e-3)


def test_record_table_and_pictures_are_there(evaluated, folder):
    summary = summary_of(evaluated)
    assert summary["data"] == "/".join(folder.parts[-2:])
    assert summary["seed"] == 0
    assert summary["settings"]["linear"] == {}
    assert summary["settings"]["calid-mean"]["samples"] == 0
    assert len(summary["weights_sha256"]["default"]) == 64
    assert summary["machine"]["cores"] >= 1
    table = (evaluated / "table.md").read_text()
    for method in (*METHODS, "autoencoder"):
        assert f"\n| {method} |" in table
    for name in ("examples-1.png", "errors-2.png", "differences.png"):
        assert (evaluated / name).read_bytes()[:4] == b"\x89PNG"


def test_a_second_run_finds_the_answers_of_the_first(evaluated, folder, monkeypatch, capsys):
    def never(*_: object) -> None:
        raise AssertionError("this was answered before")

    for name in ("nearest", "linear"):
        monkeypatch.setattr(methods, name, never)
    monkeypatch.setattr(Model, "between", never)
    answers, table = kept(evaluated), (evaluated / "table.md").read_text()
    assert len(answers) == 2 * len(METHODS)
    command = ("evaluate", folder, "--out", evaluated, "--methods")
    assert run(*command, ",".join(METHODS)) == 0
    assert kept(evaluated) == answers
    assert (evaluated / "table.md").read_text() == table
    assert "| linear |" in capsys.readouterr().out
    # Another method is asked, the others are not.
    with pytest.raises(AssertionError, match="answered before"):
        run(*command, "calid-sample")


def test_answers_may_be_kept_elsewhere(evaluated, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "nearest", None)
    where = evaluated / "predictions"
    options = ("--out", tmp_path, "--predictions", where, "--methods", "nearest")
    assert run("evaluate", folder, *options, "--max-subjects", 1) == 0
    summary = summary_of(tmp_path)
    assert summary["n_subjects"] == 1
    assert list(summary["methods"]) == ["nearest"]  # networks give their ceiling only to their own
    assert not (tmp_path / "predictions").exists()


class ByBrightness:
    """Stands in for the segmentation network."""

    def label_slices(self, images: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
        assert spacing == (1.5, 1.5)
        return np.rint(3 * images).astype(np.uint8)


def test_downstream_compares_with_the_labels_beside_the_stacks(
    tmp_path, monkeypatch: pytest.MonkeyPatch
):
    data, out = tmp_path / "data", tmp_path / "out"
    systole = HeartPhantom(201).end_systole
    for name, seed, phase in (("p1_ED", 201, 0.0), ("p1_ES", 201, systole), ("p2_ED", 202, 0.0)):
        labels = true_labels(seed, phase).T
        write_nifti(data / f"{name}.nii.gz", labels.astype(np.int16) * 100)
        write_nifti(data / f"{name}_label.nii.gz", labels)
    devices: list[str] = []
    monkeypatch.setattr(
        segment, "load_segmenter", lambda device: devices.append(device) or ByBrightness()
    )
    options = ("--protocol", "downstream", "--methods", "classical", "--device", "cpu")
    assert run("evaluate", data, "--out", out, *options) == 0
    assert devices == ["cpu"]
    summary = summary_of(out)
    assert summary["protocol"] == "downstream"
    assert summary["ceilings"] == ["real slice"]
    assert summary["splits"] == {}
    figures = summary["methods"]
    assert set(figures) == {"nearest", "linear", "cubic", "registration", "blend", "real slice"}
    for method, own in figures.items():
        perfect = method == "real slice"
        for name in ("dice", "dice_RV", "dice_MYO", "dice_LV"):
            assert (own[name]["mean"] == 1.0) == perfect, (method, name)
        for name in ("hd95", "lv_error_ml", "rv_error_ml", "lv_ef_error"):
            assert (own[name]["mean"] == 0.0) == perfect, (method, name)
    assert "dice: share of the way to real slice" in (out / "table.md").read_text()
    rows = list(csv.DictReader((out / "per_subject.csv").read_text().splitlines()))
    errors = {r["subject"]: float(r["lv_ef_error"]) for r in rows if r["method"] == "linear"}
    assert set(errors) == {"p1", "p2"}
    assert errors["p1"] > 0
    assert np.isnan(errors["p2"])  # without end-systole


def test_errors_of_evaluate_have_their_codes(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(segment, "load_segmenter", lambda device: ByBrightness())
    (tmp_path / "empty").mkdir()
    linear_alone = ("--methods", "linear")
    for arguments, code in (
        ((tmp_path / "absent", "--out", tmp_path / "out"), 8),
        ((tmp_path / "empty", "--out", tmp_path / "out"), 8),
        ((folder, "--out", tmp_path / "out", "--methods", "magic"), 2),
        ((folder, "--out", tmp_path / "out", "--max-subjects", 0), 2),
        ((folder, "--out", tmp_path / "out", "--protocol", "magic"), 2),
        ((folder, "--out", tmp_path / "out", "--methods", "regression"), 7),
        ((folder, "--out", tmp_path / "out", "--protocol", "downstream", *linear_alone), 8),
    ):
        assert run("evaluate", *arguments) == code, arguments
    messages = capsys.readouterr().err
    assert "calid train regression" in messages
    assert "No manual labels" in messages
    assert not (tmp_path / "out" / "summary.json").exists()


def test_odd_data_are_read_as_asked(folder, tmp_path, capsys):
    image = nib.load(folder / "phantom201_ED.nii.gz")
    voxels = np.asarray(image.dataobj).astype(np.float32)
    voxels[5, 5, 0] = np.nan
    header = image.header.copy()
    header.set_data_dtype(np.float32)
    header["pixdim"][3] = 8.0  # the affine says 10
    (tmp_path / "data").mkdir()
    nib.save(nib.Nifti1Image(voxels, None, header), tmp_path / "data" / "odd_ED.nii.gz")
    command = ("evaluate", tmp_path / "data", "--out", tmp_path / "out", "--methods", "linear")
    assert run(*command) == 8
    assert "NaN or infinite" in capsys.readouterr().err
    assert run(*command, "--fill", 0, "--spacing-from", "affine") == 0
    summary = summary_of(tmp_path / "out")
    assert summary["reading"] == {
        "spacing_from": "affine",
        "fill": 0.0,
        "odd_slices": "refuse",
        "series": [],
    }
    assert summary["n_images"] == 2
    assert len(kept(tmp_path / "out")) == 1
    assert run(*command, "--fill", 0, "--spacing-from", "pixdim") == 0
    assert len(kept(tmp_path / "out")) == 2, "slices at other places are another question"


def test_dicom_folders_and_files_of_a_folder_are_stacks(folder, tmp_path):
    exams = tmp_path / "exams"
    film = dicom_writer.short_axis((0, 10, 20, 30, 40), phases=4, matrix=(40, 36))
    dicom_writer.save(film, exams / "first_person", shuffle=0)
    dicom_writer.save_zip(film[:12], exams / "second_person.zip")
    shutil.copy(folder / "phantom201_ED.nii.gz", exams)
    command = ("--out", tmp_path / "out", "--methods", "linear")
    assert run("evaluate", exams, *command) == 0
    summary = summary_of(tmp_path / "out")
    assert (summary["n_subjects"], summary["n_images"]) == (3, 2 + 1 + 2)
    film_only = ("--protocol", "film", "--out", tmp_path / "film", "--methods", "linear")
    assert run("evaluate", exams / "second_person.zip", *film_only) == 0
    assert summary_of(tmp_path / "film")["n_images"] == 4


def test_uncertainty_is_measured_of_the_samples(folder, tmp_path, monkeypatch, capsys):
    """Samples about the truth-free linear answer, so that no network is needed."""

    def samples(self: Model, images, positions, targets, spacing, answer):
        middle = linear(images, positions, targets, spacing)
        drawn = np.random.default_rng(0).normal(size=(answer.samples, *middle.shape))
        return (middle + 0.1 * drawn).astype(np.float32)

    monkeypatch.setattr(Model, "between", samples)
    command = ("evaluate", folder, "--protocol", "uncertainty", "--out", tmp_path / "out")
    assert run(*command) == 0
    summary = summary_of(tmp_path / "out")
    (method,) = summary["methods"]
    assert method == "calid-average"
    assert summary["settings"][method]["samples"] == 8
    figures = summary["methods"][method]
    assert 0 < figures["inside_50"]["mean"] < figures["inside_90"]["mean"] <= 100
    assert figures["rank"]["low"] <= figures["rank"]["mean"] <= figures["rank"]["high"]
    assert f"| {method} |" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "calibration.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setattr(Model, "between", lambda *_, **__: pytest.fail("answered before"))
    assert run(*command) == 0
    capsys.readouterr()
    assert run(*command, "--methods", "linear") == 2
    assert "--methods" in capsys.readouterr().err
