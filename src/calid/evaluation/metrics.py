"""Image figures of merit on window units, data range 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["hfen", "psnr", "sharpness", "ssim"]


def psnr(prediction: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over the last two axes, data range 1.

    Parameters
    ----------
    prediction, truth
        Shape ``(..., height, width)``.

    Returns
    -------
    Tensor
        Shape ``(...)``; infinite where both agree.
    """
    return -10 * (prediction - truth).square().mean((-2, -1)).log10()


def _gaussian(sigma: float, radius: int) -> Tensor:
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (x / sigma) ** 2)
    return weights / weights.sum()


def _separable(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter the last two axes, valid part only; ``x`` is ``(batch, height, width)``."""
    weights = kernel.to(x)
    x = F.conv2d(x[:, None], weights[None, None, :, None])
    return F.conv2d(x, weights[None, None, None, :])[:, 0]


def ssim(prediction: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al., IEEE TIP 2004), Gaussian window 11, sigma 1.5.

    Parameters
    ----------
    prediction, truth
        Shape ``(..., height, width)``, at least 11 pixels a side, data range 1.

    Returns
    -------
    Tensor
        Shape ``(...)``; mean over the pixels whose window lies inside the image.
    """
    shape = prediction.shape[:-2]
    x = prediction.reshape(-1, *prediction.shape[-2:]).double()
    y = truth.reshape(-1, *truth.shape[-2:]).double()
    window = _gaussian(1.5, 5)
    mean_x, mean_y, xx, yy, xy = (
        _separable(v, window) for v in (x, y, x.square(), y.square(), x * y)
    )
    c1, c2 = 0.01**2, 0.03**2
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x.square() + yy - mean_y.square()
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure).mean((-2, -1)).reshape(shape)


def sharpness(prediction: Tensor, truth: Tensor) -> Tensor:
    """High-frequency energy of the prediction over that of the truth; 1 is right.

    High frequencies are what a Gaussian of sigma 1.5 pixels takes away.

    Parameters
    ----------
    prediction, truth
        Shape ``(batch, height, width)``.

    Returns
    -------
    Tensor
        Shape ``(batch,)``.
    """
    window = _gaussian(1.5, 5)
    energies = []
    for image in (prediction, truth):
        detail = image[:, 5:-5, 5:-5] - _separable(image, window)
        energies.append(detail.square().mean((-2, -1)))
    return energies[0] / energies[1]


def hfen(prediction: Tensor, truth: Tensor) -> Tensor:
    """High-frequency error norm (Ravishankar and Bresler, IEEE TMI 2011), relative.

    Both images pass a Laplacian of Gaussian of sigma 1.5 pixels.

    Parameters
    ----------
    prediction, truth
        Shape ``(batch, height, width)``.

    Returns
    -------
    Tensor
        Shape ``(batch,)``; norm of the difference over the norm of the truth, 0 is right.
    """
    edges, wanted = (_laplacian_of_gaussian(v, 1.5, 7) for v in (prediction, truth))
    error = (edges - wanted).square().sum((-2, -1))
    return (error / wanted.square().sum((-2, -1))).sqrt()


def _laplacian_of_gaussian(x: Tensor, sigma: float, radius: int) -> Tensor:
    smooth = _gaussian(sigma, radius).to(x)
    place = torch.arange(-radius, radius + 1, dtype=smooth.dtype, device=x.device)
    curved = smooth * (place.square() - sigma**2) / sigma**4
    curved = curved - curved.mean()  # a constant has no edges
    rows = F.conv2d(F.conv2d(x[:, None], curved[None, None, :, None]), smooth[None, None, None, :])
    columns = F.conv2d(
        F.conv2d(x[:, None], smooth[None, None, :, None]), curved[None, None, None, :]
    )
    return (rows + columns)[:, 0]
