"""Figures of merit of films, which are periodic: the last frame is followed by the first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["HARMONIC", "fast_share", "flicker", "temporal_error"]

HARMONIC = 4
"""Harmonics of the heart rate up to this one count as motion, those above as flicker."""


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
    wanted = _change(truth)
    error = np.square(_change(prediction) - wanted).sum((0, 2, 3))
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


def _change(film: NDArray[np.float32]) -> NDArray[np.float64]:
    """Every frame's successor minus the frame, same shape."""
    return (np.roll(film, -1, axis=0) - film).astype(np.float64)


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotient, NaN where the denominator is 0 or NaN."""
    out = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
