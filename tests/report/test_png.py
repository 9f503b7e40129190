"""Pictures are light, and show what they are given."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from calid.data.phantom import HeartPhantom
from calid.report.examples import example_sheets
from calid.report.png import LIGHT, encode, png

RNG = np.random.default_rng(0)


def decoded(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content))


def rgb(content: bytes) -> np.ndarray:
    return np.asarray(decoded(content).convert("RGB"))


def test_a_grey_picture_is_kept_to_the_bit():
    pixels = np.repeat(RNG.integers(0, 256, (40, 50, 1), np.uint8), 3, axis=2)
    content = encode(pixels)
    assert decoded(content).mode == "L"
    np.testing.assert_array_equal(rgb(content), pixels)


def test_a_picture_of_few_colours_is_kept_to_the_bit():
    pixels = RNG.integers(0, 256, (9, 3), np.uint8)[RNG.integers(0, 9, (40, 50))]
    content = encode(pixels)
    assert decoded(content).mode == "P"
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
    images, errors = example_sheets(truth, {"a": truth, "b": 1 - truth})
    found, of_errors = rgb(png(images)), rgb(png(errors))
    expected = np.rint(truth * 255).repeat(2, axis=0).repeat(2, axis=1)
    title = found.shape[0] - 120
    np.testing.assert_allclose(found[title:, :100, 0], expected, atol=1)  # matplotlib rounds
    assert decoded(png(images)).mode == "L"
    assert np.ptp(of_errors[title:, 102:202], axis=(0, 1)).max() == 0  # no error, one colour
    assert not of_errors[:, :100].any()


@pytest.mark.slow
def test_a_sheet_of_every_method_is_light():
    """Hearts of the size that is evaluated, noisier than a scan."""
    heart = HeartPhantom(1).acquire(slices=2, start=30.0, field_of_view=192.0)
    truth = heart.data[0, 0] / heart.data.max()
    answers = {f"m{n}": truth + RNG.normal(0, 0.05, truth.shape) for n in range(15)}
    for figure in example_sheets(truth, {k: v.astype(np.float32) for k, v in answers.items()}):
        content = png(figure, limit=LIGHT)
        assert len(content) <= LIGHT
        assert len(decoded(content).getcolors()) >= 32
