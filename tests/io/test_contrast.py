"""Padding and outliers do not own the contrast; without them it is that of all voxels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from calid.data.intensity import IntensityWindow
from calid.data.phantom import HeartPhantom
from calid.errors import CalidWarning
from calid.io import read
from calid.io.contrast import contrast
from calid.stack import Intensity


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Slices of a synthetic heart, int16."""
    return HeartPhantom(4).acquire(gap=20.0, spacing=2.0).data[0]


def framed(image: np.ndarray, value: float, width: int = 5) -> np.ndarray:
    out = image.copy()
    out[:, :width] = out[:, -width:] = out[..., :width] = out[..., -width:] = value
    return out


def circle(image: np.ndarray) -> np.ndarray:
    """Padding outside of a disc, and half of it in one slice only."""
    height, width = image.shape[1:]
    rows, columns = np.mgrid[:height, :width]
    out = image.copy()
    out[:, np.hypot(rows - height / 2, columns - width / 2) > 0.48 * width] = -2000
    out[0, : height // 6] = -2000
    return out


def resampled(image: np.ndarray) -> np.ndarray:
    """Padding that a resampling has mixed with the pixels beside it."""
    return ndimage.shift(framed(image, -20000).astype(np.float32), (0, 0.4, -0.3), order=1)


def specks(image: np.ndarray, share: float = 0.012) -> np.ndarray:
    out = image.copy()
    out[np.random.default_rng(0).random(image.shape) < share] = 30000
    return out


def two_paddings(image: np.ndarray) -> np.ndarray:
    out = framed(image, -1024, 7)
    return framed(out, -32768, 3)


DAMAGE = {
    "low": lambda image: framed(image, -32768),
    "high": lambda image: framed(image, 32767),
    "circle": circle,
    "resampled": resampled,
    "specks": specks,
    "two": two_paddings,
    "offset": lambda image: framed(image + 3000, 0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_padding_and_outliers_do_not_own_the_window(name, image):
    damaged = DAMAGE[name](image)
    found, sound = contrast(damaged), contrast(image)
    shift = 3000 if name == "offset" else 0
    width = sound.high - sound.low
    assert abs(found.low - shift - sound.low) < 0.1 * width
    assert abs(found.high - shift - sound.high) < 0.1 * width
    assert found.outside > 0
    window = IntensityWindow.of(damaged)
    middle = np.s_[:, 20:-20, 20:-20]
    assert window.normalise(damaged)[middle].max() > 0.8
    if name != "specks":
        assert window.normalise(damaged)[1:, 0].max() == 0, "padding is dark, whatever its value"


@pytest.mark.parametrize("change", ["none", "zeros", "saturated", "offset", "bright", "spread"])
def test_what_is_neither_padding_nor_an_outlier_leaves_the_window_as_it_is(change, image):
    if change == "zeros":
        image = framed(image, 0)
    elif change == "saturated":
        image = np.minimum(image, int(np.percentile(image, 96)))
    elif change == "offset":
        image = image + 5000
    elif change == "bright":  # fat, or a vessel beside the coil: large, and no constant
        image = image.astype(np.float32)
        image[:, 2:14, 2:14] *= 12
    elif change == "spread":
        image = np.random.default_rng(0).normal(0, 1, image.shape).astype(np.float32)
    found = contrast(image)
    assert (found.low, found.high) == tuple(np.percentile(image.astype(np.float64), (0.5, 99.5)))
    assert found.outside == 0


def test_drawn_images_of_few_values_are_taken_as_they_are():
    drawn = np.zeros((4, 40, 40), np.int16)
    drawn[:, 10:30, 10:30], drawn[:, 15:25, 15:25] = 900, 1000
    assert contrast(drawn).outside == 0


def test_a_negative_slope_turns_the_window_round(image):
    upright = IntensityWindow.of(image)
    inverted = (4000 - image).astype(np.int16)
    window = IntensityWindow.of(inverted, Intensity(-1.0, 4000.0))
    np.testing.assert_allclose(window.normalise(inverted), upright.normalise(image), atol=1e-3)
    seen = window.normalise(inverted)
    clear = (seen > 0) & (seen < 1.5)
    restored = seen * (window.high - window.low) + window.low
    np.testing.assert_allclose(restored[clear], inverted[clear], atol=1)


def test_reading_says_how_much_is_left_out(image, tmp_path):
    affine = np.diag([-2.0, -2.0, 20.0, 1.0])
    header = nib.Nifti1Image(framed(image, -32768).T, affine).header
    header.set_xyzt_units("mm", "sec")
    nib.save(nib.Nifti1Image(framed(image, -32768).T, affine, header), tmp_path / "a.nii")
    with pytest.warns(CalidWarning, match=r"2\d % of voxels are padding or outliers"):
        read(tmp_path / "a.nii")
