"""The trade of likeness for crispness: the dial of the default preset, and every method.

    python benchmarks/tradeoff.py DATA OUT [--baselines FOLDER] [--max-subjects N]

Hidden slices of the stacks below DATA, which need manual labels, are reconstructed with the dial,
the steps of the transport, and the number of samples that are averaged varied one at a time; all
other methods are points beside these lines. No setting is best in all of PSNR, Dice and sharpness:
the line says what one costs in terms of the other. What counts as detail and how much of it and of
structure is added is chosen here, by the lines "detail, pixels", "gain of detail" and "gain
of structure"; "one straight line" is a dial that does not tell detail from structure.
OUT becomes a folder with ``table.md``, ``summary.json`` and ``tradeoff.png``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.ndimage import gaussian_filter

from calid import Answer, Method, Model, load_segmenter
from calid.data.bank import find_stacks, subject_of
from calid.evaluation.downstream import downstream
from calid.evaluation.hidden_slices import hidden_slices
from calid.evaluation.methods import Roster, averaged, record
from calid.evaluation.protocol import Contender, Protocol, evaluate
from calid.evaluation.tables import by_subject, markdown_table
from calid.models.interpolator import DEFAULT
from calid.report.figures import LIGHT, save_figure

ROOT = Path(__file__).resolve().parents[1]
PLACE, SCALE = DEFAULT.dial, DEFAULT.detail
(AT_DEFAULT, _), AT_CRISP = DEFAULT.default_gains, DEFAULT.crisp_gains


@dataclass(frozen=True)
class Mix:
    """The mean, and detail and structure of what the transport adds to it."""

    dial: float  # the default position, which is weighted by g^2, or 1, by g
    detail: float  # standard deviation in pixels of the Gaussian that divides them
    gains: tuple[float, float]


LINES: dict[str, dict[float, Answer | Mix | str]] = {
    "dial": {
        0: "calid-mean",
        **{d: Answer(dial=d) for d in (0.25, 0.5)},
        0.75: "calid",
        0.875: Answer(dial=0.875),
        1: "calid-crisp",
    },
    "one straight line": {
        0: "calid-mean",
        **{a: Mix(PLACE, SCALE, (a, a)) for a in (0.5, 0.75, 1)},
    },
    "detail, pixels": {s: Mix(PLACE, s, (AT_DEFAULT, 0)) for s in (1, 1.5, 2, 3)},
    "gain of detail": {a: Mix(PLACE, SCALE, (a, 0)) for a in (0.9, 1, 1.12, 1.3)},
    "gain of detail at dial 1": {a: Mix(1, SCALE, (a, AT_CRISP[1])) for a in (1.1, 1.2, 1.3)},
    "gain of structure at dial 1": {
        b: Mix(1, SCALE, (AT_CRISP[0], b)) for b in (0, 0.25, 0.5, 0.75)
    },
    "steps at dial 1": {
        **{n: Answer(dial=1, steps=n) for n in (1, 2, 3)},
        6: "calid-crisp",
        **{n: Answer(dial=1, steps=n) for n in (12, 24)},
    },
    "samples averaged": {
        1: "calid-sample",
        2: Answer(samples=2),
        4: Answer(samples=4),
        8: "calid-average",
    },
}
"""Lines to the settings along them, or to methods of the benchmark that have just these."""

NUMBERED = ("dial", "samples averaged")
"""The other lines lie close together."""
AXES = {"psnr": "PSNR, dB", "ssim": "SSIM", "dice": "Dice"}


Points = dict[str, dict[str, float]]
"""Settings and methods to their means over subjects."""


def main() -> None:
    """Evaluate, then write table, figures and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--baselines", type=Path, help="weights of the learned baselines")
    parser.add_argument("--max-subjects", type=int)
    options = parser.parse_args()
    files = find_stacks(options.data)
    subjects = sorted({subject_of(f) for f in files})[: options.max_subjects]
    files = [f for f in files if subject_of(f) in subjects]
    roster = Roster(0, baselines=options.baselines)
    # The row frame by frame is of films.
    contenders = roster.contenders([n for n in roster.available() if n != "calid-2d"])
    contenders += settings(roster)
    dial = roster.load("default").interpolator.config.dial
    points: Points = {c.name: {} for c in contenders}
    for protocol in (
        hidden_slices(None, own_pixels=True),
        downstream(load_segmenter().label_slices, None, own_pixels=True),
    ):
        found = run(protocol, files, contenders)
        points = {name: known | found[name] for name, known in points.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    facts = record(contenders, options.baselines)
    facts["points"] = [{"name": name, "figures": figures} for name, figures in points.items()]
    (options.out / "summary.json").write_text(json.dumps(facts, indent=1) + "\n")
    (options.out / "table.md").write_text(table(points, len(subjects), options.data, dial))
    draw(points, options.out / "tradeoff.png")


def settings(roster: Roster) -> list[Contender]:
    """Contenders for what no method of the benchmark has."""
    model = roster.load("default")
    mixed = mixer(model)
    (known,) = roster.contenders(["calid-mean"])
    return [
        replace(
            known,
            name=named(line, value),
            method=mixed(wanted) if isinstance(wanted, Mix) else averaged(model, wanted),
            film=None,
            identity=f"{named(line, value)} {wanted} {known.identity}",
        )
        for line, values in LINES.items()
        for value, wanted in values.items()
        if not isinstance(wanted, str)
    ]


def mixer(model: Model) -> Callable[[Mix], Method]:
    """Methods that share the mean and the transport's end of the case that was last asked for."""
    whole = replace(model.interpolator.config, default_gains=(1.0, 1.0), crisp_gains=(1.0, 1.0))
    plain = copy(model)
    plain.interpolator = copy(model.interpolator)
    plain.interpolator.config = whole
    ends = {dial: averaged(plain, Answer(dial=dial)) for dial in (0, PLACE, 1)}
    last: dict[int, tuple[Any, dict[float, NDArray[np.float32]]]] = {}

    def mixed(mix: Mix) -> Method:
        def method(*asked: Any) -> NDArray[np.float32]:
            if id(asked[0]) not in last:
                last.clear()
                # The case is kept as well, so that no other gets its identity.
                last[id(asked[0])] = asked[0], {at: end(*asked) for at, end in ends.items()}
            answers = last[id(asked[0])][1]
            mean, added = answers[0], answers[mix.dial] - answers[0]
            structure = gaussian_filter(added, (0, mix.detail, mix.detail), mode="nearest")
            alpha, beta = map(np.float32, mix.gains)
            return np.asarray(mean + alpha * (added - structure) + beta * structure)

        return method

    return mixed


def named(line: str, value: float) -> str:
    """Name of a setting."""
    return f"{line} {value:g}"


def run(
    protocol: Protocol, files: list[Path], contenders: list[Contender]
) -> dict[str, dict[str, float]]:
    """Means over subjects of the metrics that are shown."""
    with Progress() as bar:
        job = bar.add_task(protocol.name, total=len(files) * len(contenders))
        found = evaluate(
            protocol,
            files,
            contenders,
            ROOT / "runs" / "predictions",
            lambda done: bar.update(job, completed=done),
        )
    return {
        name: {
            metric: float(np.nanmean([figures[metric] for figures in subjects.values()]))
            for metric in (*AXES, "sharpness", "hd95")
            if metric in protocol.columns
        }
        for name, subjects in by_subject(protocol, found.rows).items()
    }


def table(points: Points, subjects: int, data: Path, default: float) -> str:
    """All points, a line each."""
    lines = [
        f"Hidden slices of {'/'.join(data.resolve().parts[-2:])}, {subjects} subjects, means. "
        f"`calid` is what `calid reconstruct` gives: dial {default:g}.",
        "",
    ]
    digits = {"psnr": 2, "ssim": 3, "sharpness": 3, "dice": 3, "hd95": 2}
    lines += markdown_table(
        ["", *digits],
        [[name, *(f"{f[c]:.{n}f}" for c, n in digits.items())] for name, f in points.items()],
    )
    return "\n".join(lines) + "\n"


def draw(points: Points, path: Path) -> None:
    """Each figure against sharpness: a line a setting, a cross a method."""
    figure, axes = plt.subplots(1, len(AXES), figsize=(5 * len(AXES), 4.4), layout="constrained")
    lines = {
        line: {
            value: points[setting if isinstance(setting, str) else named(line, value)]
            for value, setting in values.items()
        }
        for line, values in LINES.items()
    }
    apart = {n: f for n, f in points.items() if not any(f in v.values() for v in lines.values())}
    for axis, (metric, label) in zip(axes, AXES.items(), strict=True):
        for line, values in lines.items():
            x, y = ([f[name] for f in values.values()] for name in ("sharpness", metric))
            axis.plot(x, y, "o-", markersize=4, label=line)
            if line in NUMBERED:
                for value, *place in zip(values, x, y, strict=True):
                    note(axis, f"{value:g}", place, (2, -10 if line == "dial" else 5))
        for name, figures in apart.items():
            place = [figures["sharpness"], figures[metric]]
            axis.plot(*place, "kx", markersize=5)
            # To the inside, and away from the neighbour of almost the same name.
            right = figures["sharpness"] > 0.75
            note(axis, name, place, (-5 if right else 5, -9 if name == "linear" else 3))
        axis.axvline(1, color="0.8", linewidth=1, zorder=0)
        axis.set(xlabel="sharpness (the truth's is 1)", ylabel=label)
    axes[0].legend(frameon=False, fontsize=8)
    save_figure(figure, path, limit=LIGHT)


def note(axis: Axes, text: str, place: list[float], offset: tuple[int, int]) -> None:
    """Small text beside a point, on the side that the offset points to."""
    axis.annotate(
        text,
        (place[0], place[1]),
        offset,
        textcoords="offset points",
        fontsize=7,
        ha="left" if offset[0] > 0 else "right",
    )


if __name__ == "__main__":
    main()
