"""`calid measure` with stand-ins for the networks."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run as calid
from command_line import write_nifti

from calid.baselines.rules import nearest
from calid.inference.densify import choose_factor, densify
from calid.inference.options import Generation
from calid.io.sidecar import sha256
from calid.stack import SliceStack, Volume

AFFINE = np.diag([-1.5, -1.5, 10.0, 1.0])
ML = 1.5 * 1.5 * 10 / 1000  # what a pixel stands for


class NearestModel:
    """Stands in for the interpolation networks; knows how it was asked."""

    preset = "default"

    def __init__(self) -> None:
        self.asked: list[Generation] = []

    def reconstruct(self, stack: SliceStack, wanted: Generation, *, model, on_frame) -> Volume:
        assert model is self
        self.asked.append(wanted)
        factor = choose_factor(stack, None, None)
        on_frame(stack.n_frames)
        return densify(stack, nearest, factor)


@pytest.fixture(autouse=True)
def model(untrained, monkeypatch) -> NearestModel:
    fake = NearestModel()
    monkeypatch.setattr("calid.inference.model.load_model", lambda **options: fake)
    monkeypatch.setattr("calid.inference.reconstruct.reconstruct", fake.reconstruct)
    return fake


def heart(cavity: int, height: int = 4) -> np.ndarray:
    """Labels in NIfTI's order: an LV of ``cavity`` x 10 pixels, an RV of half as many."""
    labels = np.zeros((44, 50, height), np.uint8)
    labels[4:26, 6 : 14 + cavity] = 2
    labels[10:20, 10 : 10 + cavity] = 3
    labels[26:31, 10 : 10 + cavity] = 1
    return labels


def round_heart(cavity: int) -> np.ndarray:
    rows, columns = np.mgrid[:44, :50]
    labels = np.zeros((44, 50, 5), np.uint8)
    labels[np.hypot(rows - 20, columns - 40) < 7] = 1
    labels[np.hypot(rows - 20, columns - 20) < cavity + 4] = 2
    labels[np.hypot(rows - 20, columns - 20) < cavity] = 3
    return labels


def write(path: Path, labels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    return write_nifti(path, labels, affine)


def images(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.int16) * 100


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return (
        write(tmp_path / "ed.nii.gz", images(heart(20))),
        write(tmp_path / "es.nii.gz", images(heart(8))),
    )


@pytest.fixture
def film(tmp_path) -> Path:
    frames = np.stack([heart(c) for c in (14, 20, 16, 8, 12)], -1)
    return write(tmp_path / "film.nii.gz", images(frames))


def run(*arguments: object) -> int:
    return calid("measure", *arguments)


def measured(capsys, *arguments: object) -> dict:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)["measures"]


def test_one_frame_gives_volumes_and_mass_by_both_ways(pair, capsys, model):
    found = measured(capsys, pair[0])
    for way, slices in (("sparse", 4), ("dense", 22)):
        assert found[way]["slices"] == slices
        assert found[way]["function"] is None
        (frame,) = found[way]["frames"]
        assert frame["lv_ml"] == pytest.approx(4 * 200 * ML), "both cover the same depth"
        assert frame["rv_ml"] == pytest.approx(4 * 100 * ML)
        assert frame["myocardium_ml"] == pytest.approx(4 * (22 * 28 - 200) * ML)
        assert frame["mass_g"] == pytest.approx(1.05 * frame["myocardium_ml"])
    assert model.asked == [Generation(samples=0)], "no chance in a measurement"


def test_a_pair_gives_stroke_volume_and_ejection_fraction(pair, capsys):
    found = measured(capsys, pair[0], "--es", pair[1])
    for way in ("sparse", "dense"):
        function = found[way]["function"]
        assert function["lv_edv_ml"] == pytest.approx(800 * ML)
        assert function["lv_esv_ml"] == pytest.approx(320 * ML)
        assert function["lv_sv_ml"] == pytest.approx(480 * ML)
        assert function["lv_ef_percent"] == pytest.approx(60)
        assert function["rv_ef_percent"] == pytest.approx(60)


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ((), (1, 3)),  # the largest and the smallest
        (("--ed-frame", 0, "--es-frame", 4), (0, 4)),
        (("--es-frame", 2), (1, 2)),
        (("--ed-frame", 2), (2, 3)),
    ],
)
def test_of_a_film_frames_are_found_or_taken_as_named(film, options, ends, capsys):
    found = measured(capsys, film, *options)
    cavities = np.array([14, 20, 16, 8, 12]) * 40 * ML
    for way in ("sparse", "dense"):
        volumes = [frame["lv_ml"] for frame in found[way]["frames"]]
        np.testing.assert_allclose(volumes, cavities)
        function = found[way]["function"]
        assert (function["ed_frame"], function["es_frame"]) == ends
        pair = function["lv_edv_ml"], function["lv_esv_ml"]
        assert pair == pytest.approx(tuple(cavities[list(ends)]))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--ed-frame", 5), "The film has 5 frames."),
        (("--es-frame", -1), "The film has 5 frames."),
        (("--ed-frame", 2, "--es-frame", 2), "One frame cannot be both."),
    ],
)
def test_frames_that_cannot_be_are_refused(film, options, rule, capsys):
    assert run(film, *options) == 2
    assert rule in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--ed-frame", "--es-frame"])
def test_files_of_one_frame_have_none_to_be_named(pair, option, capsys):
    assert run(pair[0], "--es", pair[1], option, 0) == 2
    assert "is one frame, not a film" in capsys.readouterr().err


def test_manual_labels_take_the_place_of_the_network_on_the_acquired_slices(pair, tmp_path, capsys):
    manual = write(tmp_path / "ed_label.nii.gz", heart(10))
    assert run(pair[0], "--labels", manual) == 0
    text = capsys.readouterr().out
    assert "manual" in text
    assert "dense is labelled by the network" in text
    found = measured(capsys, pair[0], "--labels", manual)
    assert (found["sparse"]["labels"], found["dense"]["labels"]) == ("manual", "network")
    assert found["sparse"]["frames"][0]["lv_ml"] == pytest.approx(400 * ML)
    assert found["dense"]["frames"][0]["lv_ml"] == pytest.approx(800 * ML)


def test_both_frames_of_a_pair_may_have_manual_labels(pair, tmp_path, capsys):
    labels = [write(tmp_path / f"l{c}.nii.gz", heart(c)) for c in (10, 5)]
    options = ("--es", pair[1], "--labels", labels[0], "--es-labels", labels[1])
    found = measured(capsys, pair[0], *options)
    assert found["sparse"]["function"]["lv_ef_percent"] == pytest.approx(50)
    assert found["dense"]["function"]["lv_ef_percent"] == pytest.approx(60)


def test_manual_labels_without_the_dense_way_need_no_network(pair, tmp_path, capsys, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("no network is needed")

    monkeypatch.setattr("calid.inference.model.load_model", never)
    monkeypatch.setattr("calid.segmentation.segment.load_segmenter", never)
    manual = write(tmp_path / "label.nii.gz", heart(10))
    assert run(pair[0], "--labels", manual, "--no-dense", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content["measures"]) == ["sparse"]
    assert content["weights_sha256"] == {}


def test_labels_of_the_left_ventricle_alone_leave_the_right_one_open(pair, tmp_path, capsys):
    labels = [heart(c) * (heart(c) != 1) for c in (20, 8)]
    files = [write(tmp_path / f"l{i}.nii.gz", array) for i, array in enumerate(labels)]
    options = ("--es", pair[1], "--labels", files[0], "--es-labels", files[1])
    assert run(pair[0], *options) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("RV EF"))
    assert row.split()[-2:] == ["-", "60.0"]
    assert run(pair[0], *options, "--out", tmp_path / "out") == 0
    rows = csv.DictReader((tmp_path / "out" / "measures.csv").read_text().splitlines())
    assert [row["rv_ef_percent"] for row in rows] == ["", "60"]


def test_the_table_is_printed_and_out_holds_json_and_csv_with_hashes_and_no_names(
    pair, tmp_path, capsys
):
    out = tmp_path / "measures"
    assert run(pair[0], "--es", pair[1], "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["sparse", "dense"]
    figures = [line for line in lines if line.startswith(("LV", "RV"))]
    assert len(figures) == 9
    assert all(any(unit in line for unit in ("(ml)", "(g)", "(%)")) for line in figures)
    assert len({len(line) for line in lines[:13]}) == 1, "columns are aligned"
    assert str(out / "measures.csv") in lines
    text = (out / "measures.json").read_text()
    content = json.loads(text)
    assert content["inputs_sha256"]["es"] == sha256(pair[1])
    assert set(content["weights_sha256"]) == {"segmentation", "autoencoder", "default"}
    assert "es.nii.gz" not in text
    rows = list(csv.DictReader((out / "measures.csv").read_text().splitlines()))
    assert [row["way"] for row in rows] == ["sparse", "dense"]
    for row in rows:
        function = content["measures"][row["way"]]["function"]
        for name, value in function.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-5)
    units = ("_ml", "_g", "_percent", "_mm", "_frame")
    assert all(name.endswith(units) for name in list(rows[0])[3:])
    assert sorted(p.name for p in out.iterdir()) == ["measures.csv", "measures.json"]


def test_a_swapped_pair_is_measured_as_told_with_a_warning(pair, capsys):
    assert run(pair[1], "--es", pair[0], "--no-dense") == 0
    shown = capsys.readouterr()
    assert "swapped" in shown.err
    assert "-150.0" in shown.out


def moved(millimetres: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] = millimetres
    return affine


def two(first: int, second: int) -> np.ndarray:
    return np.stack([heart(first), heart(second)], -1)


BAD = {
    "ES of another shape": ("--es", images(heart(8, height=5)), AFFINE, 4),
    "ES of another spacing": ("--es", images(heart(8)), np.diag([-1.5, -1.5, 9.0, 1.0]), 4),
    "an ES that is a film": ("--es", images(two(8, 9)), AFFINE, 2),
    "labels of another shape": ("--labels", heart(8)[1:], AFFINE, 4),
    "labels of several frames": ("--labels", two(8, 9), AFFINE, 4),
    "labels elsewhere": ("--labels", heart(8), moved(3.0), 4),
    "labels that are none": ("--labels", heart(8) * 85, AFFINE, 5),
    "labels without a left ventricle": ("--labels", heart(8) % 3, AFFINE, 8),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_second_file_is_one_typed_error_and_writes_nothing(case, pair, tmp_path, capsys):
    option, voxels, affine, expected = BAD[case]
    bad = write(tmp_path / "bad.nii.gz", voxels, affine)
    before = sorted(tmp_path.iterdir())
    assert run(pair[0], option, bad, "--out", tmp_path / "out") == expected
    assert sorted(tmp_path.iterdir()) == before
    shown = capsys.readouterr()
    assert "bad.nii.gz" in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_a_heart_that_the_network_does_not_find_is_an_error_that_names_the_file(tmp_path, capsys):
    path = write(tmp_path / "dark.nii.gz", np.zeros((30, 30, 3), np.int16))
    assert run(path, "--no-dense") == 8
    assert "dark.nii.gz" in capsys.readouterr().err


def test_labels_may_lie_a_rounding_error_away(pair, tmp_path):
    labels = write(tmp_path / "label.nii.gz", heart(10), moved(0.2))
    assert run(pair[0], "--labels", labels, "--no-dense") == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--es-labels", "ed.nii.gz"), 2),
        (("--es", "es.nii.gz", "--labels", "ed.nii.gz"), 2),
        (("--es", "es.nii.gz", "--es-labels", "ed.nii.gz"), 2),
        (("--out", "absent/out"), 6),
        (("--out", "es.nii.gz"), 6),
    ],
)
def test_bad_options_are_refused_before_any_work(pair, tmp_path, monkeypatch, options, expected):
    monkeypatch.chdir(tmp_path)
    assert run("ed.nii.gz", *options) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ed.nii.gz", "es.nii.gz"]


def test_labels_of_another_order_are_told_and_mapped(tmp_path, capsys):
    labels = round_heart(9)
    image = write(tmp_path / "ed.nii", images(labels))
    right = write(tmp_path / "right.nii", labels)
    other = write(tmp_path / "other.nii", np.array([0, 30, 2, 7], np.uint8)[labels])
    assert run(image, "--labels", right, "--no-dense") == 0
    expected = capsys.readouterr()
    assert "warning" not in expected.err
    assert run(image, "--labels", other, "--no-dense") == 5
    command = (image, "--labels", other, "--no-dense", "--label-map")
    capsys.readouterr()
    assert run(*command, "LV=7,MYO=2,RV=30") == 0
    assert capsys.readouterr().out == expected.out
    assert run(*command, "LV=30,MYO=2,RV=7") == 0
    assert "--label-map LV=7,MYO=2,RV=30 reads them so" in capsys.readouterr().err
    assert run(*command, "LV=7,MYO=2") == 0
    assert "voxels of other labels (30) are background" in capsys.readouterr().err
    assert run(image, "--label-map", "LV=1") == 2


@pytest.mark.parametrize("named", [(), ("--ed-frame", 1, "--es-frame", 3)])
@pytest.mark.parametrize("dense", [(), ("--no-dense",)])
def test_a_film_is_measured_in_the_frames_that_have_labels(named, dense, tmp_path, capsys):
    whole = np.stack([round_heart(c) for c in (7, 9, 8, 6, 8)], -1)
    labels = whole.copy()
    labels[..., [0, 2, 4]] = 0
    film = write(tmp_path / "film.nii", images(whole))
    beside = write(tmp_path / "film_gt.nii", labels)
    out = tmp_path / "out"
    assert run(film, "--labels", beside, *named, *dense, "--out", out) == 0
    assert "2 of 5 frames have labels and are measured: 1, 3" in capsys.readouterr().err
    function = json.loads((out / "measures.json").read_text())["measures"]["sparse"]["function"]
    assert (function["ed_frame"], function["es_frame"]) == (1, 3)
    volumes = [(round_heart(c) == 3).sum() * ML for c in (9, 6)]
    assert [function["lv_edv_ml"], function["lv_esv_ml"]] == pytest.approx(volumes)
    assert run(film, "--labels", beside, "--no-dense", "--ed-frame", 2) == 8
    assert "those that have one are [1, 3]" in capsys.readouterr().err


def test_a_slice_without_labels_between_others_is_told(tmp_path, capsys):
    labels = round_heart(9)
    image = write(tmp_path / "ed.nii", images(labels))
    labels[..., 2] = 0
    assert run(image, "--labels", write(tmp_path / "label.nii", labels), "--no-dense") == 0
    assert "LV in slice 2 of frame 0" in capsys.readouterr().err
