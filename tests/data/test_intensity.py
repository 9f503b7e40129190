from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calid.data.intensity import IntensityWindow

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


def test_the_data_stay_as_they_were():
    data = np.random.default_rng(0).integers(0, 99, (3, 40)).astype(np.int16)
    before = data.copy()
    IntensityWindow.of(data)
    np.testing.assert_array_equal(data, before)


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
