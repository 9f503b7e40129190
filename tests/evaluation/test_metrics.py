"""Figures of images, masks and films, against other implementations and known answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist
from scipy.spatial.distance import dice as dissimilarity
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from calid.evaluation.metrics import (
    dice,
    fast_share,
    flicker,
    hausdorff95,
    hfen,
    psnr,
    sharpness,
    ssim,
    temporal_error,
)


def pair(noise: float, seed: int = 0, side: int = 48) -> tuple[Tensor, Tensor]:
    """A structured image and a disturbed copy, in [0, 1]."""
    rng = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(rng.random((3, side, side + 8)), (0, 2, 2))
    truth = (truth - truth.min()) / np.ptp(truth)
    prediction = np.clip(0.9 * truth + 0.03 + noise * rng.standard_normal(truth.shape), 0, 1)
    return torch.from_numpy(prediction).float(), torch.from_numpy(truth).float()


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.2])
def test_psnr_is_that_of_scikit_image(noise: float) -> None:
    prediction, truth = pair(noise)
    expected = [
        peak_signal_noise_ratio(t, p, data_range=1)
        for p, t in zip(prediction.numpy(), truth.numpy(), strict=True)
    ]
    np.testing.assert_allclose(psnr(prediction, truth), expected, rtol=1e-5)


def test_an_error_of_a_tenth_is_20_db() -> None:
    truth = torch.full((2, 4, 4), 0.5)
    assert psnr(truth + 0.1, truth).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)
    assert psnr(truth, truth).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.2])
def test_ssim_is_that_of_scikit_image(noise: float) -> None:
    # It averages over the pixels whose 11 x 11 window lies inside, as ours does.
    prediction, truth = pair(noise)
    expected = [
        structural_similarity(
            t, p, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
        )
        for p, t in zip(prediction.double().numpy(), truth.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(ssim(prediction, truth), expected, rtol=1e-6)
    assert len(set(expected)) == 3


def test_ssim_does_not_mind_the_order_or_a_flat_image() -> None:
    prediction, truth = pair(0.1)
    torch.testing.assert_close(ssim(prediction, truth), ssim(truth, prediction))
    flat = torch.full((1, 16, 16), 0.3)
    assert float(ssim(flat, flat)) == pytest.approx(1)
    # Without structure the luminance term is left: 2 a b / (a^2 + b^2), but for constants.
    assert float(ssim(flat, 2 * flat)) == pytest.approx(0.36 / 0.45, abs=1e-3)


def test_a_blurred_image_is_less_sharp_and_a_noisy_one_more() -> None:
    _, truth = pair(0.0)
    generator = torch.Generator().manual_seed(0)
    blurred = [
        torch.from_numpy(ndimage.gaussian_filter(truth.numpy(), (0, s, s))) for s in (0.7, 1.5)
    ]
    noisy = truth + 0.05 * torch.randn(truth.shape, generator=generator)
    values = [sharpness(x, truth) for x in (blurred[1], blurred[0], truth, noisy)]
    for less, more in itertools.pairwise(values):
        assert bool((less < more - 0.05).all())
    assert bool((values[0] > 0).all())


def test_sharpness_is_an_energy_and_ignores_brightness() -> None:
    _, truth = pair(0.0)
    # float32 leaves a little of an added constant.
    torch.testing.assert_close(sharpness(truth + 0.2, truth), torch.ones(3), rtol=1e-3, atol=0)
    torch.testing.assert_close(sharpness(0.5 * truth, truth), torch.full((3,), 0.25))


def test_sharpness_sees_high_frequencies_only() -> None:
    _, truth = pair(0.0, side=80)
    columns = torch.arange(truth.shape[-1])
    slow = truth + 0.2 * torch.cos(2 * math.pi * columns / 40)
    fast = truth + 0.2 * torch.cos(2 * math.pi * columns / 4)
    assert float((sharpness(slow, truth) - 1).abs().max()) < 0.3
    assert float(sharpness(fast, truth).min()) > 5


def test_the_high_frequency_error_is_zero_for_the_image_itself() -> None:
    _, truth = pair(0.0)
    assert hfen(truth, truth).tolist() == [0, 0, 0]
    assert hfen(torch.zeros_like(truth), truth).tolist() == pytest.approx([1.0] * 3)
    assert hfen(1.1 * truth + 0.05, truth).tolist() == pytest.approx([0.1] * 3, abs=1e-3)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_the_high_frequency_error_is_that_of_scipys_laplacian_of_gaussian(noise: float) -> None:
    prediction, truth = pair(noise)

    def edges(images: Tensor) -> np.ndarray:
        return np.stack([ndimage.gaussian_laplace(i, 1.5)[7:-7, 7:-7] for i in images.numpy()])

    wanted = edges(truth)
    error = np.linalg.norm(edges(prediction) - wanted, axis=(1, 2))
    expected = error / np.linalg.norm(wanted, axis=(1, 2))
    np.testing.assert_allclose(hfen(prediction, truth), expected, rtol=0.02)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_leading_axes_are_kept(metric) -> None:
    prediction, truth = pair(0.1)
    wanted = metric(prediction, truth)
    assert wanted.shape == (3,)
    torch.testing.assert_close(metric(prediction[None], truth[None])[0], wanted)
    torch.testing.assert_close(metric(prediction[2], truth[2]), wanted[2])
    assert metric(prediction[:, :11, :11], truth[:, :11, :11]).isfinite().all()


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


def square(row: int, column: int, side: int = 10, shape: tuple[int, int] = (24, 24)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[row : row + side, column : column + side] = True
    return mask


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=3).map(tuple),
    seed=st.integers(0, 1000),
    share=st.floats(0.05, 0.98),
    spacing=st.tuples(steps, steps, steps),
)
def test_the_distance_is_that_between_all_border_points(
    shape: tuple[int, ...], seed: int, share: float, spacing: tuple[float, ...]
) -> None:
    a, b = random_pair(shape, seed, share)
    assume(a.any() and b.any())
    spacing = spacing[: len(shape)]
    found = hausdorff95(a, b, spacing)
    assert found == pytest.approx(slow_hausdorff95(a, b, spacing), rel=1e-9, abs=1e-9)
    assert found == pytest.approx(hausdorff95(b, a, spacing), rel=1e-12)
    assert hausdorff95(a, a, spacing) == 0.0


@pytest.mark.parametrize("shift", [0, 1, 3, 10])
def test_a_shifted_square_overlaps_by_what_is_left(shift):
    assert dice(square(4, 4), square(4, 4 + shift)) == pytest.approx((10 - shift) / 10)
    assert dice(square(4, 4), square(4 + shift, 4)) == pytest.approx((10 - shift) / 10)


def test_a_shifted_square_is_as_far_away_as_its_far_side():
    # 2 x 2 squares are all border. Half of the pixels are as far away as the shift.
    for shift in (2, 5, 11):
        a, b = square(8, 2, 2), square(8, 2 + shift, 2)
        assert hausdorff95(a, b, (1.0, 1.5)) == pytest.approx(1.5 * shift)
        assert hausdorff95(a.T, b.T, (1.5, 1.0)) == pytest.approx(1.5 * shift)
        assert hausdorff95(a, np.roll(a, shift, 0), (2.5, 1.5)) == pytest.approx(2.5 * shift)


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


FRAMES, SLICES, SIDE = 12, 2, 5


def wave(harmonic: float, frames: int = FRAMES) -> NDArray[np.float64]:
    """A cosine of so many periods in the film, amplitude 1, shape ``(frames, 1, 1, 1)``."""
    return np.cos(2 * np.pi * harmonic * np.arange(frames) / frames)[:, None, None, None]


def brightness(seed: int = 0) -> NDArray[np.float64]:
    """Random images ``(1, slices, height, width)`` that waves are multiplied with."""
    return np.random.default_rng(seed).uniform(0.2, 1, (1, SLICES, SIDE, SIDE + 1))


def noise(frames: int = FRAMES, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((frames, SLICES, SIDE, SIDE)).astype(np.float32)


def moving(*parts: tuple[float, float]) -> NDArray[np.float32]:
    """A film of harmonics and their amplitudes about a mean."""
    film = 0.5 + sum(amplitude * wave(h) * brightness() for h, amplitude in parts)
    return np.asarray(film, np.float32)


def test_the_truth_has_no_temporal_error_and_flickers_as_it_should():
    np.testing.assert_array_equal(temporal_error(noise(), noise()), [0.0] * SLICES)
    np.testing.assert_allclose(flicker(noise(), noise()), 1.0)
    brighter = noise() + np.float32(0.25)
    np.testing.assert_allclose(temporal_error(brighter, noise()), 0, atol=1e-6)


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
    film = np.asarray(0.5 + (2 * wave(2, frames) + wave(5, frames)) * brightness(), np.float32)
    # The fifth harmonic of ten frames is Nyquist's: a cosine there has twice the energy.
    expected = 1 / 3 if frames == 10 else 1 / 5
    np.testing.assert_allclose(fast_share(film), expected, rtol=1e-4)


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
