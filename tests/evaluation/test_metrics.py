from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from calid.evaluation.metrics import hfen, psnr, sharpness, ssim


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


def test_psnr_keeps_the_leading_axes() -> None:
    prediction, truth = pair(0.1)
    together = psnr(prediction[None].repeat(2, 1, 1, 1), truth)
    assert together.shape == (2, 3)
    torch.testing.assert_close(together[1, 2], psnr(prediction[2], truth[2]))


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


def test_ssim_of_an_image_with_itself_is_one_and_falls_with_noise() -> None:
    _, truth = pair(0.0)
    assert ssim(truth, truth).tolist() == pytest.approx([1.0] * 3)
    values = [float(ssim(pair(noise)[0], truth).mean()) for noise in (0.01, 0.05, 0.2)]
    assert values == sorted(values, reverse=True)
    inverted = ssim(1 - truth, truth)
    assert float(inverted.max()) < 0


def test_ssim_does_not_mind_the_order_or_a_flat_image() -> None:
    prediction, truth = pair(0.1)
    torch.testing.assert_close(ssim(prediction, truth), ssim(truth, prediction))
    flat = torch.full((1, 16, 16), 0.3)
    assert float(ssim(flat, flat)) == pytest.approx(1)
    # Without structure the luminance term is left: 2 a b / (a^2 + b^2), but for constants.
    assert float(ssim(flat, 2 * flat)) == pytest.approx(0.36 / 0.45, abs=1e-3)


def test_ssim_keeps_the_leading_axes() -> None:
    prediction, truth = pair(0.1)
    assert ssim(prediction[0], truth[0]).shape == ()
    torch.testing.assert_close(ssim(prediction[None], truth[None])[0], ssim(prediction, truth))
    smallest = ssim(prediction[:, :11, :11], truth[:, :11, :11])
    assert smallest.shape == (3,)
    assert smallest.isfinite().all()


def test_sharpness_is_one_for_the_image_itself() -> None:
    _, truth = pair(0.0)
    assert sharpness(truth, truth).tolist() == pytest.approx([1.0] * 3)


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
