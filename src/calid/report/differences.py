"""Paired differences: what a method gains over linear, subject by subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

__all__ = ["paired_differences"]

BASE = "linear"


def paired_differences(
    results: Mapping[str, Mapping[str, Mapping[str, float]]],
    metrics: Sequence[str],
    left_out: Sequence[str] = (),
) -> Figure:
    """One panel a metric, one row a method, one dot a subject; the bar is the mean.

    Parameters
    ----------
    results
        Method to subject to metric to figure. Without linear, figures themselves are shown.
    metrics
        Which.
    left_out
        Methods that are not shown: ceilings, far off the scale.
    """
    base = results.get(BASE)
    names = [n for n in results if n not in left_out and not (base and n == BASE)]
    height = 0.8 + 0.34 * max(1, len(names))
    figure = Figure(figsize=(4.6 * len(metrics), height), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        axis.axvline(0, color="0.6", linewidth=1)
        for row, name in enumerate(names):
            values = [
                figures[metric] - (base[subject][metric] if base else 0.0)
                for subject, figures in results[name].items()
                if metric in figures and (not base or metric in base.get(subject, {}))
            ]
            values = [v for v in values if np.isfinite(v)]
            if values:
                axis.plot(values, [row] * len(values), "o", color="C0", markersize=4, alpha=0.35)
                axis.plot(
                    [np.mean(values)], [row], "|", color="C3", markersize=16, markeredgewidth=2
                )
        axis.set_xlabel(f"{metric} over {BASE}" if base else metric)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure
