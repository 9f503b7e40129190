"""Figures of merit: of images, of masks, and of films.

Images are in window units, data range 1. Films are periodic: the last frame is followed by the
first.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

__all__ = [
    "dice",
    "fast_share",
    "flicker",
    "hausdorff95",
    "hfen",
    "psnr",
    "sharpness",
    "ssim",
    "temporal_error",
]

HARMONIC = 4
"""Harmonics of the heart rate up to this one count as motion, those above as flicker."""


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
    x, y = (v.reshape(-1, *v.shape[-2:]).double() for v in (prediction, truth))
    window = _gaussian(5)
    mean_x, mean_y, xx, yy, xy = (
        _filtered(v, window, window) for v in (x, y, x.square(), y.square(), x * y)
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
    window = _gaussian(5)
    ours, theirs = (
        (x[:, 5:-5, 5:-5] - _filtered(x, window, window)).square().mean((-2, -1))
        for x in (prediction, truth)
    )
    return ours / theirs


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
    edges, wanted = (_laplacian_of_gaussian(v) for v in (prediction, truth))
    error = (edges - wanted).square().sum((-2, -1))
    return (error / wanted.square().sum((-2, -1))).sqrt()


def _gaussian(radius: int, sigma: float = 1.5) -> Tensor:
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (x / sigma) ** 2)
    return weights / weights.sum()


def _filtered(x: Tensor, along_rows: Tensor, along_columns: Tensor) -> Tensor:
    """Separable filter of ``(batch, height, width)``, the valid part only."""
    x = F.conv2d(x[:, None], along_rows.to(x)[None, None, :, None])
    return F.conv2d(x, along_columns.to(x)[None, None, None, :])[:, 0]


def _laplacian_of_gaussian(x: Tensor, sigma: float = 1.5, radius: int = 7) -> Tensor:
    smooth = _gaussian(radius, sigma).to(x)
    place = torch.arange(-radius, radius + 1).to(x)
    curved = smooth * (place.square() - sigma**2) / sigma**4
    curved = curved - curved.mean()  # a constant has no edges
    return _filtered(x, curved, smooth) + _filtered(x, smooth, curved)


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Twice the overlap over the sum of sizes (Dice, Ecology 1945).

    Parameters
    ----------
    prediction, truth
        Masks of any equal shape.

    Returns
    -------
    float
        In ``[0, 1]``, or NaN if both are empty: there is nothing to compare.
    """
    total = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / total if total else math.nan


def hausdorff95(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, ...]
) -> float:
    """95th percentile of the distances between two borders, in mm.

    Distances of both directions are pooled. A border is what an erosion by one pixel takes away.

    Parameters
    ----------
    prediction, truth
        Masks of any equal shape.
    spacing
        Of the pixels along every axis, mm.

    Returns
    -------
    float
        Not negative, or NaN if both are empty. If one is empty, the diagonal of the other one's
        bounding box.
    """
    if not prediction.any() and not truth.any():
        return math.nan
    if not prediction.any() or not truth.any():
        places = np.nonzero(prediction | truth)
        return math.hypot(
            *((np.ptp(axis) + 1) * step for axis, step in zip(places, spacing, strict=True))
        )
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, truth)]
    away = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
    distances = np.concatenate([away[1][borders[0]], away[0][borders[1]]])
    return float(np.percentile(distances, 95))


def temporal_error(
    prediction: NDArray[np.float32], truth: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Norm of the error of the change from frame to frame, over the norm of the true change.

    ``|| d/dt prediction - d/dt truth || / || d/dt truth ||`` with periodic forward differences
    and the norm over frames and pixels. 0 is right; a film that stands still has 1.

    Parameters
    ----------
    prediction, truth
        Shape ``(frames, slices, height, width)``.

    Returns
    -------
    NDArray
        Shape ``(slices,)``; NaN where the truth stands still.
    """
    found, wanted = (
        (np.roll(film, -1, axis=0) - film).astype(np.float64) for film in (prediction, truth)
    )
    error = np.square(found - wanted).sum((0, 2, 3))
    return np.sqrt(_ratio(error, np.square(wanted).sum((0, 2, 3))))


def flicker(prediction: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """`fast_share` of the prediction over that of the truth: 1 is right, more is flicker.

    Parameters
    ----------
    prediction, truth
        Shape ``(frames, slices, height, width)``.

    Returns
    -------
    NDArray
        Shape ``(slices,)``; NaN where either has no share, or the truth's share is 0.
    """
    return _ratio(fast_share(prediction), fast_share(truth))


def fast_share(film: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of the temporal energy that is above the fourth harmonic of the cycle.

    The energy is the sum over pixels of the squared deviations from their mean over time; by
    Parseval's theorem it is that of the discrete Fourier transform's harmonics 1 and up.

    Parameters
    ----------
    film
        Shape ``(frames, slices, height, width)``, one cycle, evenly sampled.

    Returns
    -------
    NDArray
        Shape ``(slices,)``, in ``[0, 1]``; NaN where the film stands still, and everywhere for
        fewer than ten frames, which cannot hold a harmonic above the fourth.
    """
    frames, slices = film.shape[:2]
    share = np.full(slices, np.nan)
    if frames < 2 * (HARMONIC + 1):
        return share
    # A pair of conjugate harmonics for each one kept, except for Nyquist's, which has no twin.
    twins = np.full(frames // 2 + 1, 2.0)
    twins[-1] = 1.0 if frames % 2 == 0 else 2.0
    for number in range(slices):  # one at a time: the transform is complex double
        images = film[:, number].astype(np.float64)
        if np.ptp(images, axis=0).any():
            spectrum = np.fft.rfft(images - images.mean(0), axis=0)
            energy = twins * np.square(np.abs(spectrum)).sum((1, 2))
            share[number] = energy[HARMONIC + 1 :].sum() / energy[1:].sum()
    return share


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotient, NaN where the denominator is 0 or NaN."""
    out = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
