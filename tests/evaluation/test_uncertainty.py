"""Prediction intervals on draws whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from calid.evaluation.protocol import Case, Row
from calid.evaluation.uncertainty import LEVELS, calibration, rank_correlation, uncertainty
from calid.report.figures import calibration_figure

PIXELS = 20_000


def draws(count: int, true_spread: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Samples of unit variance about means of their own, and truths of another variance."""
    rng = np.random.default_rng(count)
    centre = rng.normal(size=PIXELS)
    samples = centre + rng.normal(size=(count, PIXELS))
    return samples.astype(np.float32), (centre + true_spread * rng.normal(size=PIXELS)).astype("f4")


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_truth_of_the_same_distribution_lies_inside_as_often_as_said(count: int) -> None:
    figures = calibration(*draws(count))
    for level in LEVELS:
        assert figures[f"inside_{level}"] == pytest.approx(level, abs=1.2)
    assert figures["error_over_spread"] == pytest.approx(1, abs=0.03)
    assert figures["error"] == pytest.approx(np.sqrt(1 + 1 / count), rel=0.02)


def test_samples_that_are_too_sure_are_found_out() -> None:
    sure, unsure = (calibration(*draws(8, spread)) for spread in (2.0, 0.5))
    assert sure["inside_90"] < 70 < 98 < unsure["inside_90"]
    assert sure["error_over_spread"] > 1.8
    assert unsure["error_over_spread"] < 0.65


def test_equal_samples_are_right_or_infinitely_too_sure() -> None:
    same = np.zeros((4, 6), np.float32)
    wrong = calibration(same, np.ones(6, np.float32))
    assert wrong["inside_95"] == 0
    assert wrong["error_over_spread"] == np.inf
    assert calibration(same, same[0])["inside_50"] == 100


def test_no_pixel_has_no_figure() -> None:
    assert np.isnan(list(calibration(np.zeros((4, 0), "f4"), np.zeros(0, "f4")).values())).all()


def rows_of(spread: NDArray[np.float64], error: NDArray[np.float64]) -> list[Row]:
    """A subject a line."""
    levels = {f"inside_{level}": np.full(spread.shape[1], float(level)) for level in LEVELS}
    return [
        Row(f"p{i}", f"p{i}_ED", {"spread": s, "error": e, **levels}, {})
        for i, (s, e) in enumerate(zip(spread, error, strict=True))
    ]


@pytest.mark.slow
def test_rank_is_spearmans_over_all_slices() -> None:
    rng = np.random.default_rng(0)
    spread = rng.random((7, 5))
    error = spread + 0.3 * rng.random((7, 5))
    found = rank_correlation(rows_of(spread, error))
    assert found["mean"] == pytest.approx(spearmanr(spread.ravel(), error.ravel()).statistic)
    assert found["low"] < found["mean"] < found["high"]
    same = rank_correlation(rows_of(spread, spread**3))
    assert same == pytest.approx({"mean": 1, "low": 1, "high": 1})


@pytest.mark.slow
def test_slices_without_a_figure_have_no_rank() -> None:
    spread, error = np.array([[0.1, np.nan, 0.3, 0.2]]), np.array([[0.1, 0.5, 0.3, 0.2]])
    assert rank_correlation(rows_of(spread, error))["mean"] == pytest.approx(1)
    assert np.isnan(rank_correlation(rows_of(spread * np.nan, error))["mean"])


def case_of(labels: bool) -> Case:
    truth = np.zeros((1, 2, 8, 8), np.float32)
    marks = np.zeros((1, 2, 8, 8), np.uint8)
    marks[0, 0, 2:4, 2:4] = 3
    return Case(
        subject="p1",
        name="p1_ED",
        images=np.zeros((1, 3, 8, 8), np.float32),
        positions=np.array([0.0, 20.0, 40.0]),
        targets=np.array([10.0, 30.0]),
        truth=truth,
        spacing=(1.5, 1.5),
        truth_labels=marks if labels else None,
    )


def test_only_the_heart_counts_where_it_is_known() -> None:
    rng = np.random.default_rng(0)
    answer = (0.1 * rng.normal(size=(8, 2, 8, 8))).astype(np.float32)
    answer[:, :, 6:] += 5.0  # far from the heart everything is wrong
    score = uncertainty().score
    inside, everywhere = score(case_of(True), answer), score(case_of(False), answer)
    assert inside["inside_95"][0] > 70
    assert np.isnan(inside["inside_95"][1])  # no heart in this slice
    assert (everywhere["error"] > 2).all()
    assert inside["error"][0] < 0.2


def test_the_picture_shows_every_slice_that_has_figures() -> None:
    spread = np.array([[0.1, 0.2, np.nan], [0.3, 0.1, 0.2]])
    means = {f"inside_{level}": {"mean": 80.0, "low": 75.0, "high": 85.0} for level in LEVELS}
    figure = calibration_figure(rows_of(spread, spread), means)
    (dots,) = figure.axes[1].collections
    assert len(dots.get_offsets()) == 5
    nothing = calibration_figure(rows_of(spread * np.nan, spread), dict.fromkeys(means))
    assert len(nothing.axes[1].collections[0].get_offsets()) == 0
