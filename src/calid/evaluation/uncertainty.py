"""Uncertainty: whether the spread of samples says how wrong they are.

Slices are hidden, and several samples are drawn for each. Their average and spread give a
prediction interval at every pixel; calibration is how often the true pixel lies within it
(Gneiting et al., JRSS B 2007). With manual labels, only pixels of the heart count.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr, t

from calid.data.intensity import CEILING
from calid.evaluation.hidden_slices import load_case
from calid.evaluation.protocol import Case, Figures, Protocol, Row
from calid.evaluation.tables import Interval
from calid.io import Reader, read
from calid.io.labels import LabelMap

__all__ = ["LEVELS", "calibration", "rank_correlation", "uncertainty"]

LEVELS = (50, 60, 70, 80, 90, 95)
"""Nominal percentages of the prediction intervals."""


def uncertainty(
    reader: Reader = read, own_pixels: bool = False, label_map: LabelMap | None = None
) -> Protocol:
    """The protocol of a `Sampler`; parameters as `calid.evaluation.hidden_slices.hidden_slices`."""
    return Protocol(
        name="uncertainty",
        load=partial(load_case, reader=reader, own_pixels=own_pixels, label_map=label_map),
        score=_score,
        columns=("inside_50", "inside_90", "error", "spread", "error_over_spread", "rank"),
        headline=("inside_90",),
        lower_is_better=frozenset({"error"}),
    )


def calibration(samples: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, float]:
    """Figures of some pixels.

    For K samples of a Gaussian with mean m and standard deviation s, one more draw lies within
    m +- t s sqrt(1 + 1/K) as often as the interval says; t is Student's quantile with K - 1
    degrees of freedom.

    Parameters
    ----------
    samples
        Shape ``(samples, pixels)``, two samples or more.
    truth
        Shape ``(pixels,)``, same units.

    Returns
    -------
    dict
        ``inside_50`` and so on: percentage of the pixels within that interval. ``error``: root
        mean square of truth minus mean. ``spread``: root mean square of s sqrt(1 + 1/K), the
        expected error. ``error_over_spread``: 1 is right, more means that the samples are too
        similar. All NaN without pixels.
    """
    if samples.shape[1] == 0:
        names = [*(f"inside_{level}" for level in LEVELS), "error", "spread", "error_over_spread"]
        return dict.fromkeys(names, np.nan)
    count = len(samples)
    wide = samples.astype(np.float64)
    spread = wide.std(axis=0, ddof=1) * np.sqrt(1 + 1 / count)
    off = np.abs(truth - wide.mean(axis=0))
    figures = {
        f"inside_{level}": 100 * float((off <= t.ppf(0.5 + level / 200, count - 1) * spread).mean())
        for level in LEVELS
    }
    error, expected = (float(np.sqrt(np.square(x).mean())) for x in (off, spread))
    ratio = error / expected if expected else np.inf
    return figures | {"error": error, "spread": expected, "error_over_spread": ratio}


def rank_correlation(rows: Sequence[Row], seed: int = 0, draws: int = 2000) -> Interval:
    """Spearman's correlation of spread and error over all slices, bootstrapped over subjects.

    NaN where slices are too few or equal.
    """
    figures: dict[str, list[NDArray[np.float64]]] = {}
    for row in rows:
        pairs = np.stack([row.figures["spread"], row.figures["error"]])
        figures.setdefault(row.subject, []).append(pairs[:, np.isfinite(pairs).all(axis=0)])
    subjects = [np.concatenate(parts, axis=1) for parts in figures.values()]
    generator = np.random.default_rng(seed)
    picks = generator.integers(len(subjects), size=(draws, len(subjects)))
    drawn = [_spearman(np.concatenate([subjects[i] for i in pick], axis=1)) for pick in picks]
    low, high = np.nanpercentile(drawn, (2.5, 97.5)) if np.isfinite(drawn).any() else (np.nan,) * 2
    mean = _spearman(np.concatenate(subjects, axis=1))
    return {"mean": mean, "low": float(low), "high": float(high)}


def _score(case: Case, answer: NDArray[np.float32]) -> Figures:
    """Figures of every hidden slice; ``answer`` is ``(samples, targets, height, width)``."""
    truth = np.clip(case.truth[0], 0, CEILING)
    counts = np.ones(truth.shape, bool) if case.truth_labels is None else case.truth_labels[0] > 0
    slices = [calibration(answer[:, i, mask], truth[i, mask]) for i, mask in enumerate(counts)]
    return {name: np.array([figures[name] for figures in slices]) for name in slices[0]}


def _spearman(pairs: NDArray[np.float64]) -> float:
    """Correlation of the ranks of two rows; NaN if a row has no two values that differ."""
    if pairs.shape[1] < 2 or (pairs == pairs[:, :1]).all(axis=1).any():
        return np.nan
    return float(spearmanr(*pairs).statistic)
