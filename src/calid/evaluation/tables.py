"""Combine figures of images into figures of subjects, with intervals, and write them to files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calid.evaluation.protocol import Figures, Protocol, Row
from calid.io.sidecar import together, write_json, write_text

__all__ = [
    "Interval",
    "Results",
    "bootstrap",
    "by_group",
    "by_subject",
    "markdown",
    "markdown_table",
    "summarise",
    "write_results",
]

BASE, STRONG = "linear", "registration"
"""Methods over which gains are counted: what most viewers do, and the strongest classical one."""

Results = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Figures by method, then subject, then metric."""

Interval = dict[str, float]
"""``mean``, and ``low`` and ``high`` of its 95 % interval."""


def by_subject(protocol: Protocol, rows: Mapping[str, Sequence[Row]]) -> Results:
    """Means over all images of a subject, whatever stack they are of.

    Figures that are not finite are left out: NaN, and the infinite PSNR of an exact answer. A
    metric without any figure is NaN, and a subject without any metric is left out.
    """
    return {method: _subjects(own, protocol.combine) for method, own in rows.items()}


def by_group(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Results]]:
    """Results by group, then value, over the images with that value.

    Only metrics with one figure per image in every row can be split. A group without such
    metrics, or with a single value, is left out.
    """
    first = next(iter(rows.values()))
    splits: dict[str, dict[str, Results]] = {}
    for group in dict.fromkeys(name for row in first for name in row.groups):
        known = [row for row in first if group in row.groups]
        values = sorted({v for row in known for v in row.groups[group]}, key=_rank)
        # A case of one image cannot tell figures of images from those of cases by itself.
        metrics = [
            name
            for name in dict.fromkeys(name for row in known for name in row.figures)
            if all(
                row.figures[name].shape == (len(row.groups[group]),)
                for row in known
                if name in row.figures
            )
        ]
        if len(values) > 1 and metrics:
            splits[group] = {
                value: {
                    method: _subjects([_part(r, group, value, metrics) for r in own], None)
                    for method, own in rows.items()
                }
                for value in values
            }
    return splits


def _rank(value: str) -> tuple[float, str]:
    """Order of a group's values: numbers by size, then the heart from base to apex."""
    number, _, unit = value.partition(" ")
    if unit and number.replace(".", "", 1).isdigit():
        return float(number), ""
    thirds = ("base", "mid", "apex", "end")
    return math.inf, str(thirds.index(value)) if value in thirds else value


def _part(row: Row, group: str, value: str, metrics: Sequence[str]) -> Row:
    """The images of a row that have a value in a group."""
    chosen = np.array([v == value for v in row.groups.get(group, ())], bool)
    names = [m for m in metrics if m in row.figures and group in row.groups]
    return Row(row.subject, row.case, {m: row.figures[m][chosen] for m in names}, {})


def _subjects(
    rows: Sequence[Row], combine: Callable[[Mapping[str, Figures]], Mapping[str, float]] | None
) -> dict[str, dict[str, float]]:
    means: dict[str, dict[str, float]] = {}
    for subject in dict.fromkeys(row.subject for row in rows):
        cases = {row.case: row.figures for row in rows if row.subject == subject}
        own: dict[str, float] = {}
        for metric in dict.fromkeys(m for figures in cases.values() for m in figures):
            values = np.concatenate([f[metric] for f in cases.values() if metric in f])
            present = values[np.isfinite(values)]
            own[metric] = float(present.mean()) if len(present) else math.nan
        if combine:
            own |= combine(cases)
        if not all(math.isnan(v) for v in own.values()):
            means[subject] = own
    return means


def bootstrap(values: NDArray[np.float64], seed: int = 0, draws: int = 2000) -> Interval:
    """Percentile bootstrap of the mean over subjects (Efron, 1979).

    Parameters
    ----------
    values
        Shape ``(subjects,)``, one figure a subject.
    """
    generator = np.random.default_rng(seed)
    picks = generator.integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def summarise(
    protocol: Protocol,
    results: Results,
    splits: Mapping[str, Mapping[str, Results]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Means with 95 % bootstrap intervals over subjects, and paired gains.

    Gains are over linear and over registration, where these took part.

    Parameters
    ----------
    results, splits
        Of `by_subject` and `by_group`.
    facts
        Anything that belongs on the record: data, seed, weights' hashes, machine.
    """
    subjects, columns = _columns(results)
    methods: dict[str, dict[str, Any]] = {}
    goal = protocol.goal
    for method, own in columns.items():
        methods[method] = {m: _interval(values) for m, values in own.items()}
        for base in (BASE, STRONG):
            if base in columns and method != base:
                methods[method][f"over_{base}"] = {
                    m: _interval(values - columns[base].get(m, math.nan))
                    for m, values in own.items()
                }
        if BASE in columns and method != BASE and goal is not None and goal in columns:
            methods[method]["share_of_way"] = {
                m: _share(*(_mean(columns[n].get(m, np.zeros(0))) for n in (method, BASE, goal)))
                for m in protocol.headline
            }
    return {
        "protocol": protocol.name,
        "n_subjects": len(subjects),
        **facts,
        "columns": list(protocol.columns),
        "headline": list(protocol.headline),
        "lower_is_better": sorted(protocol.lower_is_better),
        "ceilings": [n for n in protocol.ceilings if n in results],
        "goal": goal,
        "methods": methods,
        "splits": {
            group: {value: _means(part) for value, part in values.items()}
            for group, values in splits.items()
        },
    }


def _columns(results: Results) -> tuple[list[str], dict[str, dict[str, NDArray[np.float64]]]]:
    """Subjects, and their figures by method, then metric; NaN where a subject has none."""
    subjects = sorted({s for own in results.values() for s in own})
    columns = {
        method: {
            metric: np.array([own.get(s, {}).get(metric, math.nan) for s in subjects])
            for metric in dict.fromkeys(m for figures in own.values() for m in figures)
        }
        for method, own in results.items()
    }
    return subjects, columns


def _interval(values: NDArray[np.float64]) -> Interval | None:
    """Mean and interval over the subjects that have the figure, if there are any."""
    present = values[~np.isnan(values)]
    return bootstrap(present) if len(present) else None


def _mean(values: NDArray[np.float64]) -> float | None:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else None


def _share(own: float | None, base: float | None, top: float | None) -> float | None:
    """Share of the distance from linear to the goal that a method covers, from means."""
    if own is None or base is None or top is None or top == base:
        return None
    return (own - base) / (top - base)


def _means(results: Results) -> dict[str, Any]:
    subjects, columns = _columns(results)
    means = {
        method: {m: _mean(values) for m, values in own.items()} for method, own in columns.items()
    }
    return {"n_subjects": len(subjects), "methods": means}


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]


def markdown(summary: Mapping[str, Any]) -> str:
    """The summary as Markdown tables, intervals in brackets."""
    methods, headline, ceilings = (summary[k] for k in ("methods", "headline", "ceilings"))
    shown = {m: f"{m} ↓" if m in summary["lower_is_better"] else m for m in summary["columns"]}
    columns = [c for c in summary["columns"] if any(c in f for f in methods.values())]
    gains = headline if BASE in methods else []
    share = any("share_of_way" in f for f in methods.values())
    head = ["method", *(shown[c] for c in columns), *(f"{shown[m]} over linear" for m in gains)]
    rows = []
    for method, figures in methods.items():
        over = figures.get(f"over_{BASE}", {})
        rows.append([method, *(_cell(figures.get(c)) for c in columns)])
        rows[-1] += [_cell(over.get(m)) for m in gains]
        if share:
            way = figures.get("share_of_way", {}).get(headline[0])
            rows[-1].append("" if way is None else f"{100 * way:.0f} %")
    if share:
        head.append(f"{headline[0]}: share of the way to {summary['goal']}")
    grids = {"own": ", in pixels of the images", "1.5mm": ", in pixels of 1.5 mm"}
    lines = [
        f"{summary['protocol']} on {summary['data']}{grids.get(summary.get('grid') or '', '')}: "
        f"{summary['n_subjects']} subjects, {summary['n_images']} compared images, seed "
        f"{summary['seed']}. Means over subjects with 95 % bootstrap intervals; less is better "
        "where marked ↓.",
        "",
        *markdown_table(head, rows),
    ]
    rows = [
        [method, *(_cell(figures[f"over_{STRONG}"].get(c)) for c in columns)]
        for method, figures in methods.items()
        if f"over_{STRONG}" in figures and method not in (BASE, *ceilings)
    ]
    if rows:
        lines += ["", f"By how much each differs from {STRONG}, subject by subject:", ""]
        lines += markdown_table(["method", *(shown[c] for c in columns)], rows)
    for group, values in summary["splits"].items():
        everyone = [f for part in values.values() for f in part["methods"].values()]
        parts = [
            (metric, value, part["n_subjects"], part["methods"])
            for metric in headline
            if any(figures.get(metric) is not None for figures in everyone)
            for value, part in values.items()
        ]
        head = ["method", *(f"{shown[m]}, {value} ({count})" for m, value, count, _ in parts)]
        rows = [
            [method, *(_number(means.get(method, {}).get(m)) for m, *_, means in parts)]
            for method in methods
        ]
        lines += ["", f"By {group}, means:", "", *markdown_table(head, rows)]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.{_digits(value)}f}"


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return ""
    digits = _digits(interval["mean"])
    return "{mean:.{d}f} [{low:.{d}f}, {high:.{d}f}]".format(d=digits, **interval)


def _digits(value: float) -> int:
    return 2 if abs(value) >= 1.5 else 3


def write_results(
    results: Results,
    summary: Mapping[str, Any],
    pictures: Mapping[str, Callable[[Path], None]],
    folder: Path,
) -> None:
    """Write the report into ``folder``: all of its files, summary.json last, or none.

    Parameters
    ----------
    pictures
        File names to what writes them.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    everyone = [figures for own in results.values() for figures in own.values()]
    metrics = list(dict.fromkeys(m for figures in everyone for m in figures))
    writer.writerow(["method", "subject", *metrics])
    for method, own in results.items():
        for subject, figures in sorted(own.items()):
            cells = (f"{figures[m]:.6g}" if m in figures else "" for m in metrics)
            writer.writerow([method, subject, *cells])
    with together() as write:
        for name, picture in pictures.items():
            write(folder / name, picture)
        write(folder / "table.md", partial(write_text, markdown(summary)))
        write(folder / "per_subject.csv", partial(write_text, buffer.getvalue()))
        write(folder / "summary.json", partial(write_json, summary))
