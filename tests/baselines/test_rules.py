"""The cubic B-spline is exact where a spline of its degree must be."""

from __future__ import annotations

import numpy as np
import pytest

from calid.baselines.rules import cubic

UNEVEN = np.array([0.0, 7.0, 20.0, 26.0, 41.0])
TARGETS = np.array([0.0, 3.0, 7.5, 19.0, 33.3, 41.0])
SPACING = (1.4, 1.6)


def polynomials(places: np.ndarray, degree: int, shape: tuple[int, int] = (5, 6)) -> np.ndarray:
    """Another polynomial of ``degree`` in z in every pixel."""
    coefficients = np.random.default_rng(0).normal(size=(degree + 1, *shape))
    powers = (places[:, None] / 20) ** np.arange(degree + 1)
    return np.tensordot(powers, coefficients, 1).astype(np.float32)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_polynomials_up_to_a_cubic_are_exact_between_unevenly_spaced_slices(degree):
    answer = cubic(polynomials(UNEVEN, degree), UNEVEN, TARGETS, SPACING)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, polynomials(TARGETS, degree), atol=2e-5)


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
def test_few_slices_give_the_polynomial_through_all_of_them(slices):
    places = UNEVEN[:slices]
    targets = np.linspace(0.0, places[-1], 5)
    answer = cubic(polynomials(places, slices - 1), places, targets, SPACING)
    assert answer.shape == (5, 5, 6)
    np.testing.assert_allclose(answer, polynomials(targets, slices - 1), atol=2e-5)


def test_at_an_acquired_position_the_answer_is_the_slice():
    images = np.random.default_rng(1).random((5, 9, 4), np.float32)
    np.testing.assert_allclose(cubic(images, UNEVEN, UNEVEN, SPACING), images, atol=1e-6)


def test_curvature_is_continuous_across_a_slice():
    images = np.random.default_rng(2).random((9, 1, 1), np.float32)
    places, step = np.arange(9) * 10.0, 0.5
    fine = np.arange(0.0, 80.0 + step, step)
    second = np.diff(cubic(images, places, fine, SPACING)[:, 0, 0].astype(float), 2) / step**2
    # Within a piece curvature changes by a constant; a jump at a slice would stand out.
    assert np.abs(np.diff(second)).max() < 0.1 * np.abs(second).max()
