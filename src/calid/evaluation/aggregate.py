"""From figures of single images to figures of subjects, whole and split into groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from calid.evaluation.protocol import Figures, Protocol, Row

__all__ = ["Results", "by_group", "by_subject"]

Results = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Method to subject to metric to figure."""


def by_subject(protocol: Protocol, rows: Mapping[str, Sequence[Row]]) -> Results:
    """Means over all images of a subject, whatever stack they are of.

    Figures that are not finite are left out: NaN, and the infinite PSNR of an exact answer. A
    metric without any figure is NaN.
    """
    return {method: _subjects(own, protocol.combine) for method, own in rows.items()}


def by_group(
    protocol: Protocol, rows: Mapping[str, Sequence[Row]]
) -> dict[str, dict[str, Results]]:
    """Group to value to results of the images of that value.

    Only metrics with one figure an image in every row can be split; a group that splits
    nothing, or has one value, is left out.
    """
    first = next(iter(rows.values()))
    splits: dict[str, dict[str, Results]] = {}
    for group in dict.fromkeys(name for row in first for name in row.groups):
        values = sorted({v for row in first for v in row.groups.get(group, ())}, key=_rank)
        metrics = _per_image(first, group)
        if len(values) > 1 and metrics:
            splits[group] = {
                value: {m: _subjects([_part(r, group, value, metrics) for r in own], None)
                        for m, own in rows.items()}
                for value in values
            }  # fmt: skip
    return splits


def _rank(value: str) -> tuple[float, str]:
    """Order of a group's values: numbers by size, then the heart from base to apex."""
    number, _, unit = value.partition(" ")
    if unit and number.replace(".", "", 1).isdigit():
        return float(number), ""
    thirds = ("base", "mid", "apex", "end")
    return math.inf, str(thirds.index(value)) if value in thirds else value


def _per_image(rows: Sequence[Row], group: str) -> list[str]:
    """Metrics with a figure for every image; a case of one image cannot tell them by itself."""
    return [
        name
        for name in dict.fromkeys(name for row in rows for name in row.figures)
        if all(
            row.figures[name].shape == (len(row.groups[group]),)
            for row in rows
            if name in row.figures and group in row.groups
        )
    ]


def _part(row: Row, group: str, value: str, metrics: Sequence[str]) -> Row:
    """The images of a row that have a value in a group."""
    chosen: NDArray[np.bool_] = np.array([v == value for v in row.groups.get(group, ())], bool)
    names = [m for m in metrics if m in row.figures and group in row.groups]
    return Row(row.subject, row.case, {m: row.figures[m][chosen] for m in names}, {})


def _subjects(
    rows: Sequence[Row], combine: Callable[[Mapping[str, Figures]], Mapping[str, float]] | None
) -> dict[str, dict[str, float]]:
    pooled: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    cases: dict[str, dict[str, Figures]] = {}
    for row in rows:
        cases.setdefault(row.subject, {})[row.case] = row.figures
        for name, values in row.figures.items():
            pooled.setdefault(row.subject, {}).setdefault(name, []).append(values)
    means = {
        subject: {name: _mean(np.concatenate(v)) for name, v in metrics.items()}
        for subject, metrics in pooled.items()
    }
    for subject in means if combine else ():
        assert combine is not None
        means[subject] |= combine(cases[subject])
    return {s: m for s, m in means.items() if m and not all(np.isnan(v) for v in m.values())}


def _mean(values: NDArray[np.float64]) -> float:
    present = values[np.isfinite(values)]
    return float(present.mean()) if len(present) else float("nan")
