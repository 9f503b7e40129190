"""Every dot of the figure is a subject's difference over linear."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from calid.report.differences import paired_differences
from calid.report.png import save_figure

RESULTS = {
    "nearest": {"a": {"psnr": 9.0, "ssim": 0.3}, "b": {"psnr": 17.0, "ssim": 0.4}},
    "linear": {"a": {"psnr": 10.0, "ssim": 0.5}, "b": {"psnr": 20.0, "ssim": 0.5}},
    "better": {"a": {"psnr": 12.0, "ssim": 0.6}, "b": {"psnr": 24.0, "ssim": 0.8}},
    "ceiling": {"a": {"psnr": 40.0, "ssim": 1.0}, "b": {"psnr": 40.0, "ssim": 1.0}},
}


def names_of(axis: Axes) -> list[str]:
    return [t.get_text() for t in axis.get_yticklabels()]


def rows_of(axis: Axes) -> dict[str, dict[str, list[float]]]:
    """Label of a row to the places of its dots and of its mean."""
    assert axis.figure is not None
    names = names_of(axis.figure.axes[0])  # the panels share them
    out: dict[str, dict[str, list[float]]] = {}
    for line in axis.lines:
        marker = {"o": "dots", "|": "mean"}.get(str(line.get_marker()))
        if marker:
            places = {int(y) for y in np.asarray(line.get_ydata())}
            assert len(places) == 1
            row = out.setdefault(names[places.pop()], {})
            row[marker] = np.asarray(line.get_xdata()).tolist()
    return out


def test_there_is_a_panel_a_metric_and_a_row_a_method():
    figure = paired_differences(RESULTS, ["psnr", "ssim"], ["ceiling"])
    assert [a.get_xlabel() for a in figure.axes] == ["psnr over linear", "ssim over linear"]
    for axis in figure.axes:
        # The first method on top, linear itself and what is left out nowhere.
        assert set(rows_of(axis)) == {"nearest", "better"}
        assert axis.yaxis_inverted()
    assert names_of(figure.axes[0]) == ["nearest", "better"]


def test_dots_are_paired_differences_and_the_bar_is_their_mean():
    psnr, ssim = paired_differences(RESULTS, ["psnr", "ssim"], ["ceiling"]).axes
    assert rows_of(psnr) == {
        "nearest": {"dots": [-1.0, -3.0], "mean": [-2.0]},
        "better": {"dots": [2.0, 4.0], "mean": [3.0]},
    }
    assert rows_of(ssim)["better"]["dots"] == pytest.approx([0.1, 0.3])
    assert any(list(np.asarray(line.get_xdata())) == [0, 0] for line in psnr.lines)


def test_nothing_is_left_out_unless_asked():
    (axis,) = paired_differences(RESULTS, ["psnr"]).axes
    assert rows_of(axis)["ceiling"]["dots"] == [30.0, 20.0]


def test_without_linear_the_figures_themselves_are_shown():
    results = {n: RESULTS[n] for n in ("nearest", "better")}
    (axis,) = paired_differences(results, ["psnr"]).axes
    assert axis.get_xlabel() == "psnr"
    assert rows_of(axis)["better"] == {"dots": [12.0, 24.0], "mean": [18.0]}


def test_subjects_without_both_figures_have_no_dot():
    results = {
        "linear": {"a": {"dice": 0.5}, "b": {"dice": math.nan}, "c": {}, "e": {"dice": 0.25}},
        "some": {
            "a": {"dice": 0.75},
            "b": {"dice": 0.5},
            "c": {"dice": 0.5},
            "d": {"dice": 0.5},
            "e": {"dice": math.nan},
        },
        "none": {"b": {"dice": 0.5}},
    }
    (axis,) = paired_differences(results, ["dice"]).axes
    assert rows_of(axis) == {"some": {"dots": [0.25], "mean": [0.25]}}
    assert names_of(axis) == ["some", "none"]


@pytest.mark.parametrize("count", [1, 2, 12])
def test_the_figure_can_be_written_however_many_methods_there_are(tmp_path: Path, count: int):
    names = ["linear", *(f"a method with a long name {i}" for i in range(count - 1))]
    results = {n: RESULTS["linear" if n == "linear" else "better"] for n in names}
    path = tmp_path / "differences.png"
    save_figure(paired_differences(results, ["psnr", "ssim"]), path, dots_per_inch=40)
    assert path.read_bytes()[:4] == b"\x89PNG"
