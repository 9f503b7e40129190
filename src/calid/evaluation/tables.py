"""Results as files: summary.json, per_subject.csv, table.md."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calid.evaluation.statistics import bootstrap
from calid.io.atomic import atomic
from calid.io.sidecar import write_json

__all__ = ["Results", "markdown", "summarise", "write_results"]

Results = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Method to subject to metric to figure."""


def summarise(
    results: Results, protocol: str, data: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Means with 95 % bootstrap intervals over subjects, and paired gains over linear.

    Parameters
    ----------
    facts
        Anything that belongs on the record: seed, weights' hashes, counts.
    """
    methods: dict[str, Any] = {}
    subjects = sorted(next(iter(results.values())))
    for method, per_subject in results.items():
        names = list(next(iter(per_subject.values())))
        columns = {k: np.array([per_subject[s][k] for s in subjects]) for k in names}
        methods[method] = {k: vars(bootstrap(v)) for k, v in columns.items()}
        if "linear" in results and method != "linear":
            base = {k: np.array([results["linear"][s][k] for s in subjects]) for k in names}
            methods[method]["over_linear"] = {
                k: vars(bootstrap(columns[k] - base[k])) for k in names
            }
    return {
        "protocol": protocol,
        "data": data,
        "n_subjects": len(subjects),
        **facts,
        "methods": methods,
    }


def markdown(summary: Mapping[str, Any]) -> str:
    """The summary as a Markdown table, intervals in brackets."""
    methods = summary["methods"]
    names = [k for k in next(iter(methods.values())) if k != "over_linear"]
    lines = [
        f"{summary['protocol']} on {summary['data']}: {summary['n_subjects']} subjects, "
        f"{summary['n_slices']} hidden slices, seed {summary['seed']}. Means over subjects "
        "with 95 % bootstrap intervals.",
        "",
        "| method | " + " | ".join(names) + " | PSNR over linear | SSIM over linear |",
        "|---" * (len(names) + 3) + "|",
    ]
    for method, figures in methods.items():
        cells = [_cell(figures[k]) for k in names]
        gains = figures.get("over_linear")
        cells += [_cell(gains[k]) for k in ("psnr", "ssim")] if gains else ["", ""]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_results(results: Results, summary: Mapping[str, Any], folder: Path) -> None:
    """Write the three files into ``folder``."""
    write_json(summary, folder / "summary.json")
    _write_text(markdown(summary), folder / "table.md")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    metrics = list(next(iter(next(iter(results.values())).values())))
    writer.writerow(["method", "subject", *metrics])
    for method, per_subject in results.items():
        for subject, figures in sorted(per_subject.items()):
            writer.writerow([method, subject, *(f"{figures[k]:.6g}" for k in metrics)])
    _write_text(buffer.getvalue(), folder / "per_subject.csv")


def _cell(interval: Mapping[str, float]) -> str:
    mean, low, high = (interval[k] for k in ("mean", "low", "high"))
    digits = 2 if abs(mean) >= 1.5 else 3
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _write_text(text: str, path: Path) -> None:
    with atomic(path) as file:
        file.write(text.encode())
