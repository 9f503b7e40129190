"""How far samples can be trusted: intervals that hold, and spread that says where the error is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from calid.evaluation.protocol import Row
from calid.evaluation.uncertainty import LEVELS

__all__ = ["calibration_figure"]


def calibration_figure(rows: Sequence[Row], means: Mapping[str, Any]) -> Figure:
    """Two panels: how often intervals hold, and spread against error, slice by slice.

    Parameters
    ----------
    rows
        Of the protocol `calid.evaluation.uncertainty`; a colour a subject.
    means
        Metric to its mean over subjects with an interval, as in ``summary.json``.
    """
    figure = Figure(figsize=(9.2, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    found = {level: means[f"inside_{level}"] for level in LEVELS if means[f"inside_{level}"]}
    bars = [[f["mean"] - f["low"], f["high"] - f["mean"]] for f in found.values()]
    left.plot([0, 100], [0, 100], color="0.6", linewidth=1)
    if found:
        centres = [f["mean"] for f in found.values()]
        left.errorbar(list(found), centres, np.array(bars).T, marker="o", capsize=3)
    left.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    left.set_xlabel("interval of the samples, %")
    left.set_ylabel("true pixels within it, %")
    spread, error = (np.concatenate([r.figures[n] for r in rows]) for n in ("spread", "error"))
    subjects = sorted({row.subject for row in rows})
    colours = [subjects.index(row.subject) for row in rows for _ in row.figures["spread"]]
    known = np.isfinite(spread) & np.isfinite(error)
    top = 1.05 * max(spread[known].max(initial=0.01), error[known].max(initial=0.01))
    right.plot([0, top], [0, top], color="0.6", linewidth=1)
    right.scatter(spread[known], error[known], c=np.array(colours)[known], cmap="tab20", s=14)
    right.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    right.set_xlabel("spread of a slice's samples")
    right.set_ylabel("error of their average")
    return figure
