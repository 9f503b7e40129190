"""How validation fell while the networks of a run learned.

    python benchmarks/curves.py RUN OUT

RUN is the OUT folder of `calid train default`, `paper` or a baseline. OUT becomes a folder with
``table.md``, a table for each training of the run, and ``training.png``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

from calid.evaluation.tables import markdown_table
from calid.report.figures import LIGHT, save_figure
from calid.training.recipes import STAGE_2

LINES = {"all gaps": "", "7-13 mm": "narrow_", "wider": "wide_", "frames alone": "alone_"}
"""Curves of a figure to the beginnings of their names in the log."""


def main() -> None:
    """Read the logs and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    logs = {path.parent.name: history(path) for path in sorted(options.run.glob("*/log.jsonl"))}
    text = []
    for name, rows in logs.items():
        figures = list(rows[-1])
        cells = [[f"{row[figure]:.4g}" for figure in figures] for row in rows]
        heads = [figure.replace("_", " ") for figure in figures]
        text += [f"## {name}", "", *markdown_table(heads, cells), ""]
    (options.out / "table.md").write_text("\n".join(text))
    draw(logs, options.out / "training.png")


def history(log: Path) -> list[dict[str, float]]:
    """Tuples seen, in thousands, and the figures of every validation."""
    lines = map(json.loads, log.read_text().splitlines())
    return [
        {"thousand tuples": line["step"] * STAGE_2.batch / 1000, **line["validation"]}
        for line in lines
        if "validation" in line
    ]


def draw(logs: dict[str, list[dict[str, float]]], path: Path) -> None:
    """One panel a figure, one line for the gaps of an exam and one for wider ones."""
    panels = [
        (name, figure)
        for name, rows in logs.items()
        for figure in rows[-1]
        if figure in ("regression", "flow") or (figure == "loss" and "flow" not in rows[-1])
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 2.8), squeeze=False)
    for axis, (name, what) in zip(axes[0], panels, strict=True):
        for label, start in LINES.items():
            rows = [row for row in logs[name] if start + what in row]
            seen = [row["thousand tuples"] for row in rows]
            axis.plot(seen, [row[start + what] for row in rows], marker=".", label=label)
        axis.set(title=f"{name}: {what}", xlabel="thousand tuples")
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    save_figure(figure, path, limit=LIGHT)


if __name__ == "__main__":
    main()
