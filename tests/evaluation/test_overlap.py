"""Dice and Hausdorff distances against slow implementations from other building blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.spatial.distance import dice as dissimilarity

from calid.evaluation.overlap import dice, hausdorff95

steps = st.floats(0.3, 4.0)


def random_pair(shape: tuple[int, ...], seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(shape) < share, rng.random(shape) < share


def border_points(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Pixels that touch something else, or the edge of the image, with a side."""
    points = []
    for place in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                beside = place.copy()
                beside[axis] += step
                inside = 0 <= beside[axis] < mask.shape[axis]
                if not inside or not mask[tuple(beside)]:
                    points.append(place * np.array(spacing))
    return np.unique(np.array(points), axis=0)


def slow_hausdorff95(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    distances = cdist(border_points(a, spacing), border_points(b, spacing))
    return float(np.percentile(np.concatenate([distances.min(1), distances.min(0)]), 95))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    seed=st.integers(0, 1000),
    share=st.floats(0.05, 0.95),
)
def test_dice_is_that_of_scipy(shape: tuple[int, ...], seed: int, share: float) -> None:
    a, b = random_pair(shape, seed, share)
    assume(a.any() or b.any())
    assert dice(a, b) == pytest.approx(1 - dissimilarity(a.ravel(), b.ravel()), abs=1e-12)
    assert dice(a, b) == dice(b, a)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 10),
    width=st.integers(1, 10),
    seed=st.integers(0, 1000),
    share=st.floats(0.05, 0.98),
    spacing=st.tuples(steps, steps),
)
def test_the_distance_is_that_between_all_border_points(
    height: int, width: int, seed: int, share: float, spacing: tuple[float, float]
) -> None:
    a, b = random_pair((height, width), seed, share)
    assume(a.any() and b.any())
    found = hausdorff95(a, b, spacing)
    assert found == pytest.approx(slow_hausdorff95(a, b, spacing), rel=1e-9, abs=1e-9)
    assert found == pytest.approx(hausdorff95(b, a, spacing), rel=1e-12)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000), share=st.floats(0.3, 0.95), spacing=st.tuples(steps, steps, steps)
)
def test_the_distance_holds_in_three_dimensions(
    seed: int, share: float, spacing: tuple[float, float, float]
) -> None:
    a, b = random_pair((4, 5, 3), seed, share)
    assume(a.any() and b.any())
    expected = slow_hausdorff95(a, b, spacing)
    assert hausdorff95(a, b, spacing) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def square(row: int, column: int, side: int = 10, shape: tuple[int, int] = (24, 24)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[row : row + side, column : column + side] = True
    return mask


def test_equal_masks_agree():
    mask = square(3, 5)
    assert dice(mask, mask) == 1.0
    assert hausdorff95(mask, mask, (1.5, 0.7)) == 0.0


@pytest.mark.parametrize("shift", [0, 1, 3, 9])
def test_a_shifted_square_overlaps_by_what_is_left(shift):
    assert dice(square(4, 4), square(4, 4 + shift)) == pytest.approx((10 - shift) / 10)
    assert dice(square(4, 4), square(4 + shift, 4)) == pytest.approx((10 - shift) / 10)


def test_squares_apart_do_not_overlap():
    assert dice(square(0, 0), square(12, 12)) == 0.0


def test_a_shifted_square_is_as_far_away_as_its_far_side():
    # 2 x 2 squares are all border. Half of the pixels are as far away as the shift.
    for shift in (2, 5, 11):
        a, b = square(8, 2, 2), square(8, 2 + shift, 2)
        assert hausdorff95(a, b, (1.0, 1.5)) == pytest.approx(1.5 * shift)
        assert hausdorff95(a.T, b.T, (1.5, 1.0)) == pytest.approx(1.5 * shift)
        assert hausdorff95(a, np.roll(a, shift, 0), (2.5, 1.5)) == pytest.approx(2.5 * shift)


def test_pixels_are_apart_along_both_axes():
    assert hausdorff95(square(1, 2, 1), square(4, 6, 1), (1.0, 1.0)) == pytest.approx(5.0)
    assert hausdorff95(square(1, 2, 1), square(4, 6, 1), (2.0, 0.5)) == math.hypot(6.0, 2.0)


def test_a_few_pixels_far_away_do_not_count():
    line = np.zeros((60, 40), bool)
    line[:, 3] = True
    other, far = np.roll(line, 4, axis=1), line.copy()
    assert hausdorff95(line, other, (1.0, 1.5)) == pytest.approx(6.0)
    far[0, 39] = True
    # 1 of 121 distances is 54 mm.
    assert hausdorff95(line, far, (1.0, 1.5)) == 0.0
    far[:8, 39] = True
    assert hausdorff95(line, far, (1.0, 1.5)) == pytest.approx(54.0)


def test_without_any_pixel_there_is_nothing_to_compare():
    empty = np.zeros((5, 6), bool)
    assert math.isnan(dice(empty, empty))
    assert math.isnan(hausdorff95(empty, empty, (1.0, 1.0)))


@pytest.mark.parametrize("swapped", [False, True])
def test_against_an_empty_mask_the_distance_is_the_diagonal_of_the_other(swapped):
    empty, mask = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    mask[4, 6] = mask[6, 10] = True  # 3 rows of 2 mm by 5 columns of 1.5 mm
    pair = (mask, empty) if swapped else (empty, mask)
    assert dice(*pair) == 0.0
    assert hausdorff95(*pair, (2.0, 1.5)) == pytest.approx(math.hypot(6.0, 7.5))
