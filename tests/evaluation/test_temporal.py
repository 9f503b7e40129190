"""Temporal figures on films whose harmonics are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calid.evaluation.temporal import fast_share, flicker, temporal_error

FRAMES, SLICES, SIDE = 12, 2, 5


def wave(harmonic: float, frames: int = FRAMES) -> NDArray[np.float64]:
    """A cosine of so many periods in the film, amplitude 1, shape ``(frames, 1, 1, 1)``."""
    return np.cos(2 * np.pi * harmonic * np.arange(frames) / frames)[:, None, None, None]


def images(seed: int = 0) -> NDArray[np.float64]:
    """Random images ``(1, slices, height, width)`` that waves are multiplied with."""
    return np.random.default_rng(seed).uniform(0.2, 1, (1, SLICES, SIDE, SIDE + 1))


def noise(frames: int = FRAMES, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((frames, SLICES, SIDE, SIDE)).astype(np.float32)


def moving(*parts: tuple[float, float]) -> NDArray[np.float32]:
    """A film of harmonics and their amplitudes about a mean."""
    film = 0.5 + sum(amplitude * wave(h) * images() for h, amplitude in parts)
    return np.asarray(film, np.float32)


def test_the_truth_has_no_temporal_error_and_flickers_as_it_should():
    np.testing.assert_array_equal(temporal_error(noise(), noise()), [0.0] * SLICES)
    np.testing.assert_allclose(flicker(noise(), noise()), 1.0)


def test_a_constant_offset_is_no_temporal_error():
    np.testing.assert_allclose(temporal_error(noise() + np.float32(0.25), noise()), 0, atol=1e-6)


def test_a_still_answer_has_error_one_and_no_flicker_to_speak_of():
    still = np.broadcast_to(noise()[:1], noise().shape)
    np.testing.assert_allclose(temporal_error(still, noise()), 1.0)
    assert np.isnan(flicker(still, noise())).all()


def test_a_motion_of_other_size_has_the_error_of_its_difference():
    truth, answer = moving((1, 0.4)), moving((1, 0.3))
    np.testing.assert_allclose(temporal_error(answer, truth), 0.25, rtol=1e-5)


def test_the_last_change_is_the_one_back_to_the_first_frame():
    truth = np.zeros((4, 1, 1, 1), np.float32)
    truth[3] = 1.0  # up once, and down again only across the end
    answer = truth.copy()
    answer[0] = 1.0  # now up at the first frame's place: no change across the end
    # Changes of the truth: 0, 0, 1, -1. Of the answer: -1, 0, 1, 0. Errors: -1, 0, 0, 1.
    np.testing.assert_allclose(temporal_error(answer, truth), 1.0)
    np.testing.assert_allclose(temporal_error(np.roll(answer, 1, 0), np.roll(truth, 1, 0)), 1.0)


def test_every_slice_has_its_own_figures():
    truth, answer = noise(), noise()
    answer[:, 1] = noise(seed=2)[:, 1]
    error = temporal_error(answer, truth)
    assert error[0] == 0
    assert error[1] > 0.5


@pytest.mark.parametrize(("harmonic", "share"), [(1, 0), (3, 0), (4, 0), (5, 1), (6, 1)])
def test_harmonics_up_to_the_fourth_are_motion_and_those_above_flicker(harmonic, share):
    np.testing.assert_allclose(fast_share(moving((harmonic, 0.3))), share, atol=1e-6)


@pytest.mark.parametrize("frames", [10, 11, 12, 25])
def test_shares_add_up_as_energies_do(frames):
    film = np.asarray(0.5 + (2 * wave(2, frames) + wave(5, frames)) * images(), np.float32)
    # The fifth harmonic of ten frames is Nyquist's: a cosine there has twice the energy.
    expected = 1 / 3 if frames == 10 else 1 / 5
    np.testing.assert_allclose(fast_share(film), expected, rtol=1e-4)


@pytest.mark.parametrize("frames", [10, 11])
def test_white_noise_has_the_share_of_its_harmonics(frames):
    film = np.random.default_rng(3).standard_normal((frames, 1, 200, 200)).astype(np.float32)
    above = frames - 1 - 8  # all but the mean, less four pairs
    np.testing.assert_allclose(fast_share(film), above / (frames - 1), rtol=0.02)


def test_added_flicker_raises_the_ratio_and_smoothing_lowers_it():
    truth = moving((1, 0.3), (5, 0.03))
    np.testing.assert_allclose(flicker(moving((1, 0.3), (5, 0.3)), truth), 50.5, rtol=1e-3)
    smooth = (np.roll(truth, 1, 0) + truth + np.roll(truth, -1, 0)) / 3
    assert (flicker(smooth, truth) < 0.5).all()


@pytest.mark.parametrize("frames", [4, 8, 9])
def test_short_films_have_no_harmonic_above_the_fourth(frames):
    assert np.isnan(flicker(noise(frames), noise(frames))).all()
    assert np.isfinite(temporal_error(noise(frames), noise(frames, 2))).all()


def test_a_film_that_stands_still_has_no_figures():
    still = np.broadcast_to(noise()[:1], noise().shape)
    assert np.isnan(temporal_error(noise(), still)).all()
    assert np.isnan(flicker(noise(), still)).all()
    assert np.isnan(fast_share(still)).all()


def test_nothing_is_compared_with_a_truth_without_flicker():
    truth = np.zeros((12, 1, 1, 1), np.float32)
    truth[::2] = 1  # only harmonic 6
    slow = np.zeros_like(truth)
    slow[:6] = 1
    assert np.isfinite(flicker(slow, truth)).all()
    assert flicker(truth, truth) == pytest.approx([1.0])
