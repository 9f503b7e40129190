"""How crisp generated slices are between two acquired ones, and what a long-axis cut shows.

    python benchmarks/along_z.py DATA OUT [--max-subjects N]

Stacks below DATA whose slices are 7-13 mm apart are made dense by several methods; nothing is
hidden, so this is the use itself and there is no truth. The energy of a generated slice's high
frequencies, those of `calid.evaluation.metrics.sharpness`, is divided by that of the two
acquired slices around it, weighted by distance: 1 is as crisp as what was acquired. A stack combs
where that changes from slice to slice. OUT becomes a folder with ``table.md``, ``along-z.png``
and ``long-axis.png``, a cut through one heart.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import zoom

from calid import Method, read_stack
from calid.data.bank import find_stacks, subject_of
from calid.data.intensity import IntensityWindow
from calid.evaluation.hidden_slices import region
from calid.evaluation.methods import Roster
from calid.evaluation.metrics import sharpness
from calid.evaluation.protocol import Case
from calid.evaluation.tables import markdown_table
from calid.report.figures import LIGHT, save_figure, sheet

METHODS = (
    *("linear", "registration", "blend", "paper"),
    *("calid", "calid-mean", "calid-crisp", "calid-sample"),
)
PLACES = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
"""Of the generated slices in a gap, from one acquired slice to the middle."""
EXAM = (7.0, 13.0)
"""Gaps of an exam, mm."""
CUT = 8
"""Lines of the long-axis cut in a gap; a power of two, as `paper` halves gaps."""


def main() -> None:
    """Make dense, measure, and write table and pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--max-subjects", type=int)
    options = parser.parse_args()
    cases = [case for path in find_stacks(options.data) if (case := read(path)) is not None]
    subjects = sorted({case.subject for case in cases})[: options.max_subjects]
    cases = [case for case in cases if case.subject in subjects]
    found: dict[str, list[NDArray[np.float64]]] = {}
    contenders = Roster(0).contenders(METHODS)
    for case in cases:
        for contender in contenders:
            ratio = profile(case, contender.answer(case)[0])
            found.setdefault(contender.name, []).append(ratio)
            print(case.name, contender.name, np.round(ratio, 3), flush=True)
    means = {name: by_subject(cases, rows) for name, rows in found.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    place = "/".join(options.data.resolve().parts[-2:])
    (options.out / "table.md").write_text(table(means, place, len(subjects)))
    draw(means, options.out / "along-z.png")
    cuts = {c.name: long_axis(cases[0], c.method) for c in contenders}
    save_figure(
        sheet(cuts, cmap="gray", vmin=0, vmax=1), options.out / "long-axis.png", limit=LIGHT
    )


def read(path: Path) -> Case | None:
    """The first frame of a stack around the middle of the image; none where gaps are others."""
    stack = read_stack(path)
    gaps = np.diff(stack.positions)
    if len(gaps) < 2 or gaps.min() < EXAM[0] or gaps.max() > EXAM[1]:
        return None
    frame = stack.data[:1]
    images = IntensityWindow.of(frame, stack.intensity).normalise(frame)
    images = np.maximum(images[region(images.shape[-2:], (0.5, 0.5), stack.pixel_spacing)], 0)
    targets = (stack.positions[:-1, None] + PLACES * gaps[:, None]).ravel()
    nothing = np.empty((1, 0, *images.shape[2:]), np.float32)
    return Case(
        subject_of(path), path.name, images, stack.positions, targets, nothing, stack.pixel_spacing
    )


def profile(case: Case, answer: NDArray[np.float32]) -> NDArray[np.float64]:
    """Energy of every place in a gap over that of the acquired slices around it, all gaps' mean."""
    unit = torch.from_numpy(np.clip(case.images[0, :1], 0, 1))
    acquired, generated = (
        sharpness(shown, unit.expand_as(shown)).double().numpy()
        for shown in (torch.from_numpy(np.clip(x, 0, 1)) for x in (case.images[0], answer))
    )
    expected = np.interp(case.targets, case.positions, acquired)
    return np.asarray((generated / expected).reshape(-1, len(PLACES)).mean(0))


def by_subject(cases: list[Case], rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over subjects of the means over their stacks."""
    people = sorted({case.subject for case in cases})
    pairs = list(zip(cases, rows, strict=True))
    own = [np.mean([row for case, row in pairs if case.subject == p], axis=0) for p in people]
    return np.asarray(np.mean(own, axis=0))


def long_axis(case: Case, answer: Method) -> NDArray[np.float32]:
    """The middle column of the dense stack, in pixels of a millimetre."""
    gaps, acquired = np.diff(case.positions), case.images[0]
    targets = (case.positions[:-1, None] + gaps[:, None] * np.arange(1, CUT) / CUT).ravel()
    generated = answer(acquired, case.positions, targets, case.spacing)
    column = generated[:, :, generated.shape[2] // 2].reshape(len(gaps), CUT - 1, -1)
    real = acquired[:, :, acquired.shape[2] // 2]
    dense = [np.vstack([real[gap], column[gap]]) for gap in range(len(gaps))]
    step = gaps.mean() / CUT
    return np.asarray(zoom(np.vstack([*dense, real[-1:]]), (step, case.spacing[0]), order=1))


def table(means: dict[str, NDArray[np.float64]], place: str, subjects: int) -> str:
    """A line a method, a column a place in the gap."""
    head = ["share of the gap", *(f"{p:.0%}" for p in PLACES)]
    rows = [[name, *(f"{x:.2f}" for x in row)] for name, row in means.items()]
    lines = [
        f"High-frequency energy of generated slices over that of the acquired slices around them; "
        f"{place}, {subjects} subjects, gaps of {EXAM[0]:g}-{EXAM[1]:g} mm, nothing hidden.",
        "",
        *markdown_table(head, rows),
    ]
    return "\n".join(lines) + "\n"


def draw(means: dict[str, NDArray[np.float64]], path: Path) -> None:
    """From one acquired slice through the gap to the next, mirrored at the middle."""
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    places = np.concatenate([[0], PLACES, 1 - PLACES[-2::-1], [1]])
    for name, row in means.items():
        axis.plot(places, np.concatenate([[1], row, row[-2::-1], [1]]), marker=".", label=name)
    axis.axhspan(0.85, 1.1, color="0.92", zorder=0)
    axis.set(xlabel="place in the gap", ylabel="high-frequency energy\n(acquired slices: 1)")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=4)
    save_figure(figure, path, limit=LIGHT)


if __name__ == "__main__":
    main()
