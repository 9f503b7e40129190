"""Registration and blend: what moves is met on its way, where linear interpolation ghosts."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from calid.baselines.registration import blend, registration
from calid.baselines.rules import linear
from calid.errors import UsageError

SPACING = (1.5, 1.5)


def blob(row: float, column: float, spacing: tuple[float, float] = SPACING) -> np.ndarray:
    """A Gaussian of 9 mm on a field of 96 mm, its centre in mm from the field's."""
    rows, columns = (np.arange(round(96 / s)) * s - 48 + s / 2 for s in spacing)
    squared = (rows[:, None] - row) ** 2 + (columns - column) ** 2
    return np.exp(-0.5 * squared / 9.0**2).astype(np.float32)


def error(answer: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((answer - truth) ** 2)))


@pytest.mark.parametrize("spacing", [(1.5, 1.5), (1.2, 2.0), (3.0, 3.0)])
def test_a_moving_blob_is_met_half_way_where_linear_ghosts(spacing):
    images = np.stack([blob(-6, -3, spacing), blob(6, 3, spacing)])
    places, target, truth = np.array([0.0, 20.0]), np.array([10.0]), blob(0, 0, spacing)
    answer = registration(images, places, target, spacing)
    assert answer.shape == (1, *truth.shape)
    assert answer.dtype == np.float32
    assert error(answer[0], truth) < 0.3 * error(linear(images, places, target, spacing)[0], truth)


def test_motion_is_shared_out_by_true_distance_in_every_uneven_gap():
    images = np.stack([blob(-6, 0), blob(3, 0), blob(3, 7.5)])
    places, targets = np.array([0.0, 12.0, 22.0]), np.array([4.0, 10.0, 14.0])
    answer = registration(images, places, targets, SPACING)
    truth = np.stack([blob(-3, 0), blob(1.5, 0), blob(3, 1.5)])
    ghosts = linear(images, places, targets, SPACING)
    for ours, theirs, wanted in zip(answer, ghosts, truth, strict=True):
        assert error(ours, wanted) < 0.5 * error(theirs, wanted)


def test_the_answer_tends_to_the_acquired_slice():
    images = np.stack([blob(-6, 0), blob(0, 6), blob(6, 0)])
    places = np.array([0.0, 10.0, 25.0])
    np.testing.assert_allclose(registration(images, places, places, SPACING), images, atol=1e-6)
    close = registration(images, places, np.array([1e-3, 9.999, 10.001]), SPACING)
    np.testing.assert_allclose(close, images[[0, 1, 1]], atol=1e-3)


def test_where_nothing_moves_it_is_linear():
    images = np.stack([blob(0, 0), 2 * blob(0, 0)])
    places, targets = np.array([0.0, 10.0]), np.array([2.0, 5.0])
    still = np.stack([blob(0, 0)] * 2)
    np.testing.assert_allclose(registration(still, places, targets, SPACING), still, atol=1e-5)
    blank = np.zeros_like(images)
    assert not registration(blank, places, targets, SPACING).any()


def test_a_target_does_not_depend_on_the_others_and_a_second_call_agrees():
    generator = np.random.default_rng(0)
    images = generator.random((3, 40, 33), np.float32)
    places = np.array([0.0, 8.0, 20.0])
    together = registration(images, places, np.array([2.0, 5.0, 11.0]), SPACING)
    again = registration(images, places, np.array([2.0, 5.0, 11.0]), SPACING)
    alone = registration(images, places, np.array([5.0]), SPACING)
    np.testing.assert_array_equal(together, again)
    np.testing.assert_array_equal(together[1], alone[0])
    assert together.min() >= images.min()
    assert together.max() <= images.max()


def test_without_scikit_image_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.registration", None)
    images = np.zeros((2, 16, 16), np.float32)
    with pytest.raises(UsageError, match=r"pip install calid\[benchmark\]"):
        registration(images, np.array([0.0, 10.0]), np.array([5.0]), SPACING)


def test_slices_that_are_equal_stay_as_they_are_in_a_blend():
    same, places = np.stack([blob(0, 0)] * 3), np.array([0.0, 10.0, 22.0])
    found = blend(same, places, np.array([3.0, 5.0, 17.0]), (1.4, 1.6))
    np.testing.assert_allclose(found, same, atol=1e-3)


def disc(row: float, column: float) -> np.ndarray:
    rows, columns = np.indices((50, 46))
    return (1 / (1 + np.exp(np.hypot(rows - row, columns - column) - 12))).astype(np.float32)


def test_a_blend_tends_to_the_slice_and_meets_on_its_way_what_moves():
    images, places = np.stack([disc(22, 20), disc(25, 24), disc(28, 20)]), np.array([0.0, 10, 22])
    close = blend(images, places, np.array([9.999, 10.001]), (1.4, 1.6))
    np.testing.assert_allclose(close, images[[1, 1]], atol=0.01)
    targets, truth = np.array([5.0, 16.0]), np.stack([disc(23.5, 22), disc(26.5, 22)])
    ours, theirs = (
        np.abs(method(images, places, targets, (1.4, 1.6)) - truth).mean()
        for method in (blend, linear)
    )
    assert ours < 0.5 * theirs
