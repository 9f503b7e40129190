from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calid.data.intensity import CEILING, IntensityWindow

FINITE = {"allow_nan": False, "allow_infinity": False}
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 60))
DATA = st.one_of(
    *(arrays(kind, SHAPES) for kind in (np.uint8, np.int16, np.uint16, ">i2")),
    arrays(np.float32, SHAPES, elements=FINITE),
)


@pytest.mark.slow
@given(DATA)
def test_percentiles_are_those_of_double_precision(data):
    low, high = np.percentile(data.astype(np.float64), (0.5, 99.5))
    window = IntensityWindow.of(data)
    room = 1e-12 * float(np.abs(data.astype(np.float64)).max())
    assert window.low == pytest.approx(low, abs=room)
    assert window.high == pytest.approx(high if high > low else low + 1, abs=room)


@pytest.mark.parametrize(
    "data",
    [
        np.array([2**53, 2**53 + 1]),  # alike in double precision
        np.array([-(2**63), -(2**63)]),
        np.full(3, 2e30, np.float32),  # so large that one more is no more
    ],
)
def test_a_window_is_never_empty(data):
    window = IntensityWindow.of(data)
    assert window.high > window.low
    np.testing.assert_array_equal(window.normalise(data), 0)


def restored(window: IntensityWindow, scaled: np.ndarray) -> np.ndarray:
    return scaled * (window.high - window.low) + window.low


def test_the_window_is_restored_where_nothing_was_clipped() -> None:
    data = np.random.default_rng(0).normal(300, 80, (2, 3, 40, 40)).astype(np.int16)
    before = data.copy()
    window = IntensityWindow.of(data)
    np.testing.assert_array_equal(data, before)
    assert np.percentile(data, 0.5) == window.low
    assert np.percentile(data, 99.5) == window.high
    scaled = window.normalise(data)
    assert scaled.dtype == np.float32
    inside = (scaled > 0) & (scaled < CEILING)
    assert inside.mean() > 0.99
    np.testing.assert_allclose(restored(window, scaled)[inside], data[inside], atol=1e-3)
    np.testing.assert_array_equal(np.rint(restored(window, scaled)[inside]), data[inside])


def test_the_window_clips_at_its_ceiling_and_at_zero() -> None:
    window = IntensityWindow(100.0, 300.0)
    data = np.array([0, 100, 200, 300, 400, 401, 32767], dtype=np.int16)
    np.testing.assert_allclose(window.normalise(data), [0, 0, 0.5, 1, 1.5, 1.5, 1.5])
    np.testing.assert_allclose(
        restored(window, np.float32([-0.5, 0, 0.5, 1.5])), [0, 100, 200, 400]
    )


@pytest.mark.parametrize("value", [0, -7, 1000])
def test_a_constant_image_becomes_zero_and_comes_back(value: int) -> None:
    data = np.full((1, 2, 8, 8), value, dtype=np.int16)
    window = IntensityWindow.of(data)
    scaled = window.normalise(data)
    assert not scaled.any()
    np.testing.assert_array_equal(restored(window, scaled), data)
