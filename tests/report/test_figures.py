"""Figures show what they are given, in true proportions, and their files are light."""

from __future__ import annotations

import math
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from calid.baselines.rules import linear, nearest
from calid.data.phantom import HeartPhantom
from calid.errors import OutputError
from calid.inference.densify import densify
from calid.report.figures import (
    LIGHT,
    comparison,
    cuts,
    encode,
    example_sheets,
    m_mode_sheet,
    paired_differences,
    png,
    save_figure,
    sheet,
)

RNG = np.random.default_rng(0)
RESULTS = {
    "nearest": {"a": {"psnr": 9.0, "ssim": 0.3}, "b": {"psnr": 17.0, "ssim": 0.4}},
    "linear": {"a": {"psnr": 10.0, "ssim": 0.5}, "b": {"psnr": 20.0, "ssim": 0.5}},
    "better": {"a": {"psnr": 12.0, "ssim": 0.6}, "b": {"psnr": 24.0, "ssim": 0.8}},
    "ceiling": {"a": {"psnr": 40.0, "ssim": 1.0}, "b": {"psnr": 40.0, "ssim": 1.0}},
}


def decoded(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content))


def rgb(content: bytes) -> np.ndarray:
    return np.asarray(decoded(content).convert("RGB"))


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
            (place,) = {int(y) for y in np.asarray(line.get_ydata())}
            out.setdefault(names[place], {})[marker] = np.asarray(line.get_xdata()).tolist()
    return out


@pytest.mark.slow
def test_the_comparison_shows_three_planes_of_every_method_in_true_proportions(
    small_stack, tmp_path
):
    figure = comparison(small_stack, densify(small_stack, linear, 4))
    assert [a.get_title() for a in figure.axes[:3]] == ["as acquired", "linear", "CaLID"]
    assert len(figure.axes) == 9
    images = [axis.images[0] for axis in figure.axes]
    # This "CaLID" is linear, so their columns agree; as acquired does not.
    np.testing.assert_array_equal(images[1].get_array(), images[2].get_array())
    assert not np.array_equal(images[0].get_array(), images[1].get_array())
    left, right, bottom, top = images[3].get_extent()
    assert right - left == pytest.approx(41 * 1.4)
    assert bottom - top == pytest.approx(17 * 2.5)
    path = tmp_path / "cut.png"
    save_figure(figure, path)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_long_axis_cuts_go_through_the_heart_if_it_is_known_where_it_is(small_stack):
    volume = densify(small_stack, nearest, 2)
    height, width = volume.data.shape[2:]
    found = replace(volume, region=((4, 10), (20, 30)))
    for one, row, column in ((volume, height // 2, width // 2), (found, 7, 25)):
        assert one.centre == (row, column)
        assert [cut.index[1:] for cut in cuts(one)[1:]] == [(row,), (slice(None), column)]


def test_a_figure_for_a_folder_that_is_not_there_is_refused(tmp_path):
    figure = sheet({"a": np.ones((4, 4), np.float32)})
    with pytest.raises(OutputError):
        save_figure(figure, tmp_path / "absent" / "cut.png")


@pytest.mark.parametrize("colours", [256, 9])
def test_a_grey_picture_and_one_of_few_colours_are_kept_to_the_bit(colours):
    palette = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    if colours == 9:
        palette = RNG.integers(0, 256, (9, 3), np.uint8)
    pixels = palette[RNG.integers(0, colours, (40, 50))]
    content = encode(pixels)
    assert decoded(content).mode == ("P" if colours == 9 else "L")
    np.testing.assert_array_equal(rgb(content), pixels)


@pytest.mark.parametrize("coloured", [False, True])
def test_only_what_is_too_large_loses_shades_and_nothing_is_dithered(coloured):
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    pixels = np.repeat(np.tile(ramp, (60, 1))[..., None], 3, axis=2)
    pixels[30:] = RNG.integers(0, 256, (30, 400, 1), np.uint8)
    if coloured:
        pixels[..., 0] = 255
    whole, part = encode(pixels), encode(pixels, limit=11_000)
    assert len(part) <= 11_000 < len(whole)
    assert len(decoded(part).getcolors()) < len(decoded(whole).getcolors())
    flat = rgb(part)[:30].astype(int)
    assert (flat == flat[0]).all()  # dithering would make rows differ
    assert np.abs(flat - pixels[:30]).max() <= 8


def test_pixels_of_an_example_are_whole_pixels_of_its_sheet():
    truth = RNG.integers(0, 256, (60, 50)).astype(np.float32) / 255
    images, errors = example_sheets({"truth": truth, "a": truth, "b": 1 - truth})
    found, of_errors = rgb(png(images)), rgb(png(errors))
    expected = np.rint(truth * 255).repeat(2, axis=0).repeat(2, axis=1)
    title = found.shape[0] - 120
    np.testing.assert_allclose(found[title:, :100, 0], expected, atol=1)  # matplotlib rounds
    assert decoded(png(images)).mode == "L"
    assert np.ptp(of_errors[title:, 102:202], axis=(0, 1)).max() == 0  # no error, one colour
    assert not of_errors[:, :100].any()


def test_an_m_mode_shows_the_middle_row_through_two_beats():
    film = RNG.integers(0, 256, (5, 9, 40)).astype(np.float32) / 255
    found = rgb(png(m_mode_sheet({"truth": film, "other": film[::-1]})))
    # A pixel of the row is 3 pixels of the sheet; a frame is 4 columns, as wide as it is high.
    shown = found[-120:, :120, 0]
    beats = np.rint(255 * np.concatenate([film[:, 4], film[:, 4]]).T)
    np.testing.assert_allclose(shown[1::3, 6::12], beats, atol=1)


@pytest.mark.slow
def test_a_sheet_of_every_method_is_light():
    """Hearts of the size that is evaluated, noisier than a scan."""
    heart = HeartPhantom(1).acquire(slices=2, start=30.0, field_of_view=192.0)
    truth = heart.data[0, 0] / heart.data.max()
    answers = {f"m{n}": truth + RNG.normal(0, 0.05, truth.shape) for n in range(15)}
    images = {"truth": truth, **{k: v.astype(np.float32) for k, v in answers.items()}}
    for figure in example_sheets(images):
        content = png(figure, limit=LIGHT)
        assert len(content) <= LIGHT
        assert len(decoded(content).getcolors()) >= 32


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


@pytest.mark.parametrize("count", [1, 12])
def test_differences_can_be_drawn_however_many_methods_there_are(count: int):
    names = ["linear", *(f"a method with a long name {i}" for i in range(count - 1))]
    results = {n: RESULTS["linear" if n == "linear" else "better"] for n in names}
    assert png(paired_differences(results, ["psnr", "ssim"]), 40)[:4] == b"\x89PNG"
