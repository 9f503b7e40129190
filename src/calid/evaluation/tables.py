"""Results as files: summary.json, per_subject.csv, table.md."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calid.evaluation.aggregate import Results
from calid.evaluation.protocol import Protocol
from calid.evaluation.statistics import bootstrap
from calid.io.sidecar import write_json, write_text
from calid.io.together import together

__all__ = ["markdown", "summarise", "write_results"]

BASE, STRONG = "linear", "registration"
"""Methods over which gains are counted: what most viewers do, and the strongest classical one."""


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
    subjects = sorted({s for own in results.values() for s in own})
    ceilings, goal = [n for n in protocol.ceilings if n in results], protocol.goal
    methods: dict[str, Any] = {}
    for method, own in results.items():
        metrics = dict.fromkeys(m for figures in own.values() for m in figures)
        methods[method] = {m: _interval(_column(own, m, subjects)) for m in metrics}
        for base in (BASE, STRONG):
            if base in results and method != base:
                methods[method][f"over_{base}"] = {
                    m: _interval(_column(own, m, subjects) - _column(results[base], m, subjects))
                    for m in metrics
                }
        if BASE in results and method != BASE and goal is not None and goal in results:
            methods[method]["share_of_way"] = {
                m: _share(results, method, m, goal, subjects) for m in protocol.headline
            }
    return {
        "protocol": protocol.name,
        "n_subjects": len(subjects),
        **facts,
        "columns": list(protocol.columns),
        "headline": list(protocol.headline),
        "lower_is_better": sorted(protocol.lower_is_better),
        "ceilings": ceilings,
        "goal": goal,
        "methods": methods,
        "splits": {
            group: {value: _means(part) for value, part in values.items()}
            for group, values in splits.items()
        },
    }


def markdown(summary: Mapping[str, Any]) -> str:
    """The summary as Markdown tables, intervals in brackets."""
    methods, headline = summary["methods"], summary["headline"]
    shown = {m: f"{m} ↓" if m in summary["lower_is_better"] else m for m in summary["columns"]}
    columns = [c for c in summary["columns"] if any(c in f for f in methods.values())]
    gains = [f"{shown[m]} over linear" for m in headline] if BASE in methods else []
    share = any("share_of_way" in f for f in methods.values())
    ways = [f"{headline[0]}: share of the way to {summary['goal']}"] if share else []
    lines = [_caption(summary), "", _row(["method", *(shown[c] for c in columns), *gains, *ways])]
    lines.append("|---" * (1 + len(columns) + len(gains) + len(ways)) + "|")
    for method, figures in methods.items():
        cells = [_cell(figures.get(c)) for c in columns]
        cells += [_cell(figures.get("over_linear", {}).get(m)) for m in headline if gains]
        if ways:
            way = figures.get("share_of_way", {}).get(headline[0])
            cells.append("" if way is None else f"{100 * way:.0f} %")
        lines.append(_row([method, *cells]))
    gained = {m: f[f"over_{STRONG}"] for m, f in methods.items() if f"over_{STRONG}" in f}
    gained = {m: gains for m, gains in gained.items() if m not in (BASE, *summary["ceilings"])}
    if gained:
        lines += ["", f"By how much each differs from {STRONG}, subject by subject:", ""]
        lines += [_row(["method", *(shown[c] for c in columns)])]
        lines.append("|---" * (1 + len(columns)) + "|")
        lines += [_row([m, *(_cell(g.get(c)) for c in columns)]) for m, g in gained.items()]
    for group, values in summary["splits"].items():
        lines += ["", f"By {group}, means:", ""]
        split = [m for m in headline if any(_has(part, m) for part in values.values())]
        heads = [f"{shown[m]}, {v} ({values[v]['n_subjects']})" for m in split for v in values]
        lines += [_row(["method", *heads]), "|---" * (1 + len(heads)) + "|"]
        for method in methods:
            cells = [
                _number(values[v]["methods"].get(method, {}).get(m)) for m in split for v in values
            ]
            lines.append(_row([method, *cells]))
    return "\n".join(lines) + "\n"


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


def _column(
    own: Mapping[str, Mapping[str, float]], metric: str, subjects: Sequence[str]
) -> NDArray[np.float64]:
    """A metric of every subject, NaN where there is none."""
    return np.array([own.get(s, {}).get(metric, math.nan) for s in subjects])


def _interval(values: NDArray[np.float64]) -> dict[str, float] | None:
    """Mean and interval over the subjects that have the figure, if there are any."""
    present = values[~np.isnan(values)]
    return vars(bootstrap(present)) if len(present) else None


def _share(
    results: Results, method: str, metric: str, ceiling: str, subjects: Sequence[str]
) -> float | None:
    """How much of the distance from linear to the ceiling a method covers, of the means."""
    own, base, top = (_mean(_column(results[n], metric, subjects)) for n in (method, BASE, ceiling))
    if own is None or base is None or top is None or top == base:
        return None
    return (own - base) / (top - base)


def _means(results: Results) -> dict[str, Any]:
    subjects = sorted({s for own in results.values() for s in own})
    means = {}
    for method, own in results.items():
        metrics = dict.fromkeys(m for figures in own.values() for m in figures)
        means[method] = {m: _mean(_column(own, m, subjects)) for m in metrics}
    return {"n_subjects": len(subjects), "methods": means}


def _mean(values: NDArray[np.float64]) -> float | None:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else None


def _has(part: Mapping[str, Any], metric: str) -> bool:
    return any(figures.get(metric) is not None for figures in part["methods"].values())


def _caption(summary: Mapping[str, Any]) -> str:
    grids = {"own": ", in pixels of the images", "1.5mm": ", in pixels of 1.5 mm"}
    grid = grids.get(summary.get("grid") or "", "")
    return (
        f"{summary['protocol']} on {summary['data']}{grid}: {summary['n_subjects']} subjects, "
        f"{summary['n_images']} compared images, seed {summary['seed']}. Means over subjects "
        "with 95 % bootstrap intervals; less is better where marked ↓."
    )


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(interval: Mapping[str, float] | None) -> str:
    if interval is None:
        return ""
    digits = _digits(interval["mean"])
    return "{mean:.{d}f} [{low:.{d}f}, {high:.{d}f}]".format(d=digits, **interval)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.{_digits(value)}f}"


def _digits(value: float) -> int:
    return 2 if abs(value) >= 1.5 else 3
