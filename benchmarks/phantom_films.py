"""Ejection fraction and volume curves of synthetic films, against the exact values.

    python benchmarks/phantom_films.py OUT [--hearts 12] [--frames 10]

Every heart is scanned as a film of 8 mm slices, 10 mm apart, and reconstructed every 2 mm. The
cavity of the left ventricle is known exactly. It is measured on the sparse film by Simpson's
rule, on the dense one, and on a dense film as the scanner would give it, all with the
segmentation network of the package: what the last gets wrong is the network's, which learned
from other synthetic hearts too. OUT becomes a folder with ``table.md``, ``summary.json`` and
``curves.png``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from calid import (
    Generation,
    HeartPhantom,
    Model,
    Segmenter,
    SliceStack,
    Volume,
    cavity_volumes,
    ejection_fraction,
    load_model,
    load_segmenter,
    reconstruct,
)
from calid.data.phantom import FIRST_HELD_OUT
from calid.evaluation.methods import weights_sha256
from calid.evaluation.tables import bootstrap, markdown_table
from calid.report.figures import LIGHT, save_figure

FACTOR = 5
Curve = NDArray[np.float64]


def main() -> None:
    """Scan, reconstruct, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hearts", type=int, default=12)
    parser.add_argument("--frames", type=int, default=10)
    options = parser.parse_args()
    model, segmenter = load_model(), load_segmenter()
    phases = tuple(frame / options.frames for frame in range(options.frames))
    rows = []
    for seed in range(FIRST_HELD_OUT, FIRST_HELD_OUT + options.hearts):
        rows.append(heart(seed, phases, model, segmenter))
        print(f"heart {seed}: EF " + ", ".join(f"{k} {ef(v):.1f} %" for k, v in rows[-1].items()))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(table(rows))
    curves = [{name: curve.tolist() for name, curve in row.items()} for row in rows]
    facts = {
        "weights_sha256": weights_sha256(),
        "frames": options.frames,
        "first_seed": FIRST_HELD_OUT,
        "lv_ml": curves,
    }
    (options.out / "summary.json").write_text(json.dumps(facts, indent=1) + "\n")
    draw(rows, phases, options.out / "curves.png")


def heart(
    seed: int, phases: tuple[float, ...], model: Model, segmenter: Segmenter
) -> dict[str, Curve]:
    """LV volume in ml over the frames: exact, of the sparse, the dense and the true dense film."""
    phantom = HeartPhantom(seed)
    stack = phantom.acquire(phases=phases)
    volume = reconstruct(stack, Generation(factor=FACTOR), model=model)
    gap, start = float(stack.gaps[0]), float(stack.affine[2, 3])
    truth = phantom.acquire(
        gap=gap / FACTOR, slices=len(volume.positions), start=start, phases=phases
    )
    # The dense film stands for the body that the sparse one stands for.
    half = float(stack.gaps.mean()) / 2
    return {
        "exact": np.asarray(phantom.volumes(phases).lv),
        "sparse": cavity(stack, segmenter, (half, half)),
        "dense": cavity(volume, segmenter, (half, half)),
        "true dense": cavity(truth, segmenter, (half, half)),
    }


def cavity(film: SliceStack | Volume, segmenter: Segmenter, reach: tuple[float, float]) -> Curve:
    """LV volume in ml of every frame."""
    labels = segmenter.label_volume(film)
    found = cavity_volumes(labels, film.positions, film.pixel_spacing, reach)
    return np.array([frame.lv_ml for frame in found])


def ef(curve: Curve) -> float:
    """Ejection fraction in % between the largest and the smallest volume."""
    return ejection_fraction(float(curve.max()), float(curve.min()))


def table(rows: list[dict[str, Curve]]) -> str:
    """Mean absolute errors over hearts, against the exact values and against the true film.

    The second leaves out what the segmentation gets wrong wherever it is asked.
    """
    return "\n".join(
        [
            f"{len(rows)} synthetic hearts, {len(rows[0]['exact'])} frames each, every {FACTOR}th "
            "dense slice acquired; mean absolute errors with 95 % bootstrap intervals.",
            *errors(rows, "exact", "Against the exact values:"),
            *errors(rows, "true dense", "Against the true dense film, measured alike:"),
            "",
        ]
    )


def errors(rows: list[dict[str, Curve]], truth: str, title: str) -> list[str]:
    """Lines of one table: all films but the one that is taken for the truth.

    Intervals are over the hearts; the last line is paired.
    """
    films = [name for name in ("sparse", "dense", "true dense") if name != truth]
    found = {name: np.array([off(row[name], row[truth]) for row in rows]) for name in films}
    cells = [[f"{name} film", *map(cell, figures.T)] for name, figures in found.items()]
    cells.append(["dense less sparse", *map(cell, (found["dense"] - found["sparse"]).T)])
    head = ["measured on", "EDV, ml", "ESV, ml", "EF, percentage points", "volume curve, ml"]
    head += ["change from frame to frame, ml", "last to first frame, ml"]
    return ["", title, "", *markdown_table(head, cells)]


def off(found: Curve, truth: Curve) -> list[float]:
    """Absolute errors of one heart, in the order of the table."""
    return [
        abs(found.max() - truth.max()),
        abs(found.min() - truth.min()),
        abs(ef(found) - ef(truth)),
        np.abs(found - truth).mean(),
        np.abs(steps(found) - steps(truth)).mean(),
        abs(steps(found)[-1] - steps(truth)[-1]),
    ]


def cell(values: NDArray[np.float64]) -> str:
    """Mean over hearts and its 95 % bootstrap interval."""
    return "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**bootstrap(values))


def steps(curve: Curve) -> Curve:
    """Change to the next frame; the first follows the last."""
    return np.roll(curve, -1) - curve


def draw(rows: list[dict[str, Curve]], phases: tuple[float, ...], path: Path) -> None:
    """Volume curves of all hearts."""
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    size = 3.2 * columns, 2.5 * lines
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for number, (axis, row) in enumerate(zip(axes.flat, rows, strict=False)):
        for (name, curve), style in zip(row.items(), ("k-", "C1o--", "C0o-", "C2:"), strict=True):
            axis.plot(phases, curve, style, label=name, markersize=3)
        axis.set(xlabel="share of the cycle", title=f"heart {FIRST_HELD_OUT + number}")
    axes[0, 0].set_ylabel("LV cavity, ml")
    axes[0, 0].legend(frameon=False)
    save_figure(figure, path, limit=LIGHT)


if __name__ == "__main__":
    main()
