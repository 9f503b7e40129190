"""Filters as matrices, against the libraries' filters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from calid.models.filters import box_means, gaussian_means
from calid.precision import computing


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 17, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", [1.5, 3.0, 8.0])
def test_gaussian_repeats_the_border(images: Tensor, sigma: float) -> None:
    reach = round(3 * sigma)
    wanted = gaussian_filter(
        images.numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=reach / sigma
    )
    found = gaussian_means(images, sigma)
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize("radius", [1, 5, 30])
def test_box_counts_only_what_is_inside(images: Tensor, radius: int) -> None:
    side = 2 * radius + 1
    padded = F.pad(images, (radius,) * 4)
    inside = F.pad(torch.ones_like(images), (radius,) * 4)
    wanted = F.avg_pool2d(padded, side, 1) / F.avg_pool2d(inside, side, 1)
    torch.testing.assert_close(box_means(images, radius), wanted, rtol=1e-5, atol=1e-6)


def test_autocast_does_not_round_them(images: Tensor) -> None:
    exact = gaussian_means(images, 3.0), box_means(images, 5)
    with computing(torch.device("cpu"), torch.bfloat16):
        found = gaussian_means(images, 3.0), box_means(images, 5)
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0, atol=0)
