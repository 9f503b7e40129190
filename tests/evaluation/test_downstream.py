"""The downstream protocol on painted hearts, with labellers that need no training."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from command_line import run as calid
from command_line import write_nifti
from numpy.typing import NDArray

from calid.baselines.rules import linear
from calid.errors import CalidWarning, DataError
from calid.evaluation.downstream import downstream
from calid.evaluation.hidden_slices import load_case
from calid.evaluation.protocol import Contender, Evaluation, Protocol, evaluate
from calid.evaluation.tables import by_group, by_subject, markdown, summarise
from calid.geometry.affine import from_spacing
from calid.io.labels import parse_label_map

GAP, PIXEL, SLICES = 8.0, 1.5, 5
ML = GAP * PIXEL**2 / 1000
"""Of one pixel of one slice."""


def painted(size: int) -> NDArray[np.uint8]:
    """Nested squares that shrink from slice to slice: LV in a ring, RV beside it."""
    labels = np.zeros((SLICES, 50, 44), np.uint8)
    for number, image in enumerate(labels):
        half = size - number
        image[25 - half - 3 : 25 + half + 3, 16 - half - 3 : 16 + half + 3] = 2
        image[25 - half : 25 + half, 16 - half : 16 + half] = 3
        image[25 - half : 25 + half, 30 : 30 + half] = 1
    return labels


def save(path: Path, data: NDArray[np.generic]) -> None:
    write_nifti(path, data.T, from_spacing((PIXEL, PIXEL, GAP)))


def heart(folder: Path, name: str, size: int, labelled: bool = True) -> Path:
    """A stack whose brightness is its label, and the labels beside it."""
    save(folder / f"{name}.nii", painted(size).astype(np.int16) * 100)
    if labelled:
        save(folder / f"{name}_label.nii", painted(size))
    return folder / f"{name}.nii"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two phases of one subject, one of another."""
    return [heart(tmp_path, "p1_ED", 10), heart(tmp_path, "p1_ES", 7), heart(tmp_path, "p2_ED", 9)]


def by_brightness(images: NDArray[np.float32], spacing: tuple[float, float]) -> NDArray[np.uint8]:
    assert spacing == (PIXEL, PIXEL)
    assert images.max() <= 1
    return np.rint(3 * images).astype(np.uint8)


def black(images, positions, targets, spacing):
    return np.zeros((len(targets), *images.shape[1:]), np.float32)


METHODS = [Contender("linear", linear, "linear"), Contender("black", black, "black")]


def run(files: list[Path], folder: Path, protocol: Protocol | None = None) -> Evaluation:
    protocol = protocol or downstream(by_brightness, None)
    return evaluate(protocol, files, METHODS, folder / "kept", lambda done: None)


def test_real_slices_are_the_ceiling(files, tmp_path):
    class Exact:
        def recode(self, images, spacing):
            return images

    protocol = downstream(by_brightness, Exact())  # type: ignore[arg-type]
    rows = run(files, tmp_path, protocol).rows
    assert list(rows) == ["linear", "black", "autoencoder", "real slice"]
    for one, two in zip(rows["autoencoder"], rows["real slice"], strict=True):
        assert one.figures == two.figures
        assert all(v.shape == (1,) for v in one.figures.values())
    results = by_subject(protocol, rows)["real slice"]
    assert set(results) == {"p1", "p2"}
    for figures in results.values():
        for name in ("dice", "dice_RV", "dice_MYO", "dice_LV"):
            assert figures[name] == 1.0
        for name in ("hd95", "hd95_RV", "hd95_MYO", "hd95_LV", "lv_error_ml", "rv_error_ml"):
            assert figures[name] == 0.0
    assert results["p1"]["lv_ef_error"] == results["p1"]["rv_ef_error"] == 0.0


def test_black_slices_have_no_overlap_and_the_distance_of_the_rule(files):
    case = load_case(files[0])
    figures = downstream(by_brightness, None).score(case, np.zeros_like(case.truth))
    for name in ("dice", "dice_RV", "dice_MYO", "dice_LV"):
        assert figures[name] == [0.0]
    # Slices 1 and 3 are hidden; their squares have 9 and 7 pixels on either side of the centre.
    lv = np.mean([PIXEL * math.hypot(2 * h, 2 * h) for h in (9, 7)])
    rv = np.mean([PIXEL * math.hypot(2 * h, h) for h in (9, 7)])
    myocardium = np.mean([PIXEL * math.hypot(2 * h + 6, 2 * h + 6) for h in (9, 7)])
    assert figures["hd95_LV"] == pytest.approx(lv)
    assert figures["hd95_RV"] == pytest.approx(rv)
    assert figures["hd95_MYO"] == pytest.approx(myocardium)
    assert figures["hd95"] == pytest.approx(np.mean([lv, rv, myocardium]))
    # What is missing from the volume is what the hidden slices stand for.
    assert figures["lv_error_ml"] == pytest.approx(ML * ((2 * 9) ** 2 + (2 * 7) ** 2))
    assert figures["rv_error_ml"] == pytest.approx(ML * (2 * 9 * 9 + 2 * 7 * 7))
    assert figures["lv_manual_ml"] == pytest.approx(ML * sum((2 * h) ** 2 for h in range(6, 11)))


def test_a_labeller_is_shown_the_answer_within_the_window(files):
    case, seen = load_case(files[0]), []

    def watch(images, spacing):
        seen.append((float(images.min()), float(images.max()), len(images)))
        return np.zeros(images.shape, np.uint8)

    downstream(watch, None).score(case, np.linspace(-1, 2, case.truth.size, dtype=np.float32)
                                  .reshape(case.truth.shape))  # fmt: skip
    assert (0.0, 1.0, 2) in seen
    assert {n for _, _, n in seen} == {2, 3}


def test_a_class_that_is_nowhere_is_left_out(tmp_path):
    labels = painted(10)
    labels[labels == 1] = 0
    save(tmp_path / "p1_ED.nii", labels.astype(np.int16) * 100)
    save(tmp_path / "p1_ED_label.nii", labels)
    case = load_case(tmp_path / "p1_ED.nii")
    figures = downstream(by_brightness, None).score(case, case.truth)
    assert np.isnan(figures["dice_RV"]).all()
    assert np.isnan(figures["hd95_RV"]).all()
    assert figures["dice"] == [1.0]
    assert figures["hd95"] == [0.0]
    assert figures["rv_error_ml"] == [0.0]


def lv_ml(size: int, slices: range = range(SLICES)) -> float:
    return ML * sum((2 * (size - k)) ** 2 for k in slices)


def test_the_error_of_the_ejection_fraction_needs_both_phases(files, tmp_path):
    results = by_subject(downstream(by_brightness, None), run(files, tmp_path).rows)
    assert all(math.isnan(own["p2"]["lv_ef_error"]) for own in results.values())
    assert all(math.isnan(own["p2"]["rv_ef_error"]) for own in results.values())
    # Black slices halve both volumes, but not quite alike.
    even = range(0, SLICES, 2)
    true = 100 * (1 - lv_ml(7) / lv_ml(10))
    seen = 100 * (1 - lv_ml(7, even) / lv_ml(10, even))
    assert results["black"]["p1"]["lv_ef_error"] == pytest.approx(abs(seen - true))
    assert abs(seen - true) > 0.1
    volumes = [results["black"]["p1"][n] for n in ("lv_ml", "lv_manual_ml")]
    assert volumes == pytest.approx([np.mean([lv_ml(s, r) for s in (10, 7)])
                                     for r in (even, range(SLICES))])  # fmt: skip


def test_a_ventricle_that_was_not_found_has_no_ejection_fraction(files):
    protocol = downstream(lambda images, spacing: np.zeros(images.shape, np.uint8), None)
    assert protocol.combine is not None
    cases = {c.name: protocol.score(c, c.truth) for c in map(load_case, files[:2])}
    assert all(math.isnan(v) for v in protocol.combine(cases).values())


def test_stacks_without_labels_are_left_out(files, tmp_path):
    files.append(heart(tmp_path, "p3_ED", 8, labelled=False))
    with pytest.warns(CalidWarning, match="No manual labels") as caught:
        found = run(files, tmp_path)
    assert len(caught) == 1
    assert {r.subject for r in found.rows["linear"]} == {"p1", "p2"}
    with (
        pytest.warns(CalidWarning, match="left out"),
        pytest.raises(DataError, match="No manual labels"),
    ):
        run(files[-1:], tmp_path)


def test_no_method_does_better_than_the_real_slices(files, tmp_path):
    protocol = downstream(by_brightness, None)
    found = run(files, tmp_path)
    splits = by_group(found.rows)
    assert splits == {}  # a stack has one figure: there is nothing to split
    facts = {"data": "d", "n_images": found.targets, "seed": 0}
    summary = summarise(protocol, by_subject(protocol, found.rows), splits, facts)
    assert summary["n_images"] == 6
    means = {
        metric: [summary["methods"][m][metric]["mean"] for m in ("black", "linear", "real slice")]
        for metric in protocol.columns
    }
    for metric, (empty, blend, real) in means.items():
        lower = metric in protocol.lower_is_better
        assert (real < min(empty, blend)) if lower else (real > max(empty, blend)), metric
        # Blended labels leave specks far away: a distance may be larger than that of nothing.
        if metric.startswith("dice"):
            assert empty < blend, metric
    head = markdown(summary).splitlines()[2]
    for metric in (*protocol.columns, "dice: share of the way to real slice"):
        shown = f"{metric} ↓" if metric in protocol.lower_is_better else metric
        assert f"| {shown} |" in head


def test_stacks_of_one_name_are_labelled_each_for_itself(tmp_path):
    cases = []
    for folder, half in (("a", 10), ("b", 7)):
        (tmp_path / folder).mkdir()
        cases.append(load_case(heart(tmp_path / folder, "p_ED", half)))
    protocol = downstream(by_brightness, None)
    for case in cases:
        assert protocol.score(case, case.truth)["lv_error_ml"] == [0.0]


def test_labels_of_another_order_are_told_and_mapped(files, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / files[0].name
    save(other, painted(10).astype(np.int16) * 100)
    save(other.with_name("p1_ED_label.nii"), np.array([0, 3, 2, 1], np.uint8)[painted(10)])
    with pytest.warns(CalidWarning, match="--label-map LV=1,MYO=2,RV=3 reads them so"):
        downstream(by_brightness, None).load(other)
    known = parse_label_map("LV=1,MYO=2,RV=3")
    case = downstream(by_brightness, None, label_map=known).load(other)
    usual = downstream(by_brightness, None).load(files[0])
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels, usual.labels)
    np.testing.assert_array_equal(case.truth_labels, usual.truth_labels)
    command = ("evaluate", other.parent, "--out", tmp_path / "out", "--methods", "linear")
    assert calid(*command, "--label-map", "LV=1,MYO=2,RV=3") == 0
    assert "another order" not in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["label_map"] == "LV=1,MYO=2,RV=3"
    assert calid(*command, "--protocol", "film", "--label-map", "LV=1,MYO=2,RV=3") == 2
    assert "film reads no labels" in " ".join(capsys.readouterr().err.split())
