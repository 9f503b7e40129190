from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calid.errors import GeometryError
from calid.geometry.affine import dense_affine, from_spacing
from calid.geometry.dense_grid import TOLERANCE, dense_grid, offsets, usual_gap


@pytest.mark.parametrize(
    ("gaps", "usual"), [([10, 10, 20], 10), ([10, 20], 10), ([8, 12, 8], 8), ([9.7, 10, 10.3], 10)]
)
def test_the_usual_gap_is_the_planned_one(gaps, usual):
    assert usual_gap(np.cumsum([0, *gaps]).astype(float)) == pytest.approx(usual)


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("gap", [0.7, 8.8, 10.0])
def test_equal_gaps_are_cut_into_exactly_the_factor(gap, factor):
    grid = dense_grid(np.arange(6) * gap, factor, "stack")
    np.testing.assert_array_equal(grid.index, np.arange(6) * factor)
    assert grid.step == pytest.approx(gap / factor, rel=1e-12)
    assert grid.start == 0


def test_rounded_headers_do_not_change_the_factor():
    places = np.array([0, 17.7008, 35.4005, 53.0998, 70.8003, 88.5001])
    np.testing.assert_array_equal(dense_grid(places, 12, "stack").index, np.arange(6) * 12)


@pytest.mark.parametrize("missing", [[3], [1, 2], [4]])
def test_missing_slices_leave_holes_of_whole_steps(missing):
    places = np.delete(np.arange(7) * 10.0, missing)
    grid = dense_grid(places, 4, "stack")
    np.testing.assert_allclose(grid.planes[grid.index], places, atol=1e-9)
    assert grid.step == pytest.approx(2.5)


def test_a_step_that_fits_exactly_goes_before_a_nearer_one_that_does_not():
    grid = dense_grid(np.array([0.0, 8.0, 20.0]), 5, "stack")  # 1.6 mm wanted
    assert grid.step == pytest.approx(4 / 3)
    np.testing.assert_allclose(grid.planes[grid.index], [0, 8, 20], atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-0.3, 0.3), min_size=4, max_size=10),
    st.integers(1, 8),
    st.floats(7, 12),
)
def test_jitter_of_a_third_of_a_millimetre_always_fits(jitter, factor, gap):
    places = np.arange(len(jitter)) * gap + np.array(jitter)
    grid = dense_grid(places - places[0], factor, "stack")
    away = np.abs(grid.planes[grid.index] - (places - places[0]))
    assert away.max() <= TOLERANCE
    between = np.setdiff1d(np.arange(grid.index[-1] + 1), grid.index)
    # A generated slice lies between the true positions of the acquired ones around it.
    side = np.searchsorted(grid.index, between)
    assert (grid.planes[between] < (places - places[0])[side]).all()
    assert (grid.planes[between] > (places - places[0])[side - 1]).all()
    assert 0.5 <= grid.step / (usual_gap(places) / factor) <= 2


def test_the_remedy_for_impossible_gaps_works():
    places = np.array([0, 10, 16.7, 31])
    with pytest.raises(GeometryError, match="`spacing`") as caught:
        dense_grid(places, 1, "stack")
    advised = float(caught.value.remedy.split("`spacing` ")[1].split(". ")[0])
    assert dense_grid(places, round(10 / advised), "stack").step < 5


def test_offsets_are_seen_from_the_planes_of_the_file():
    stack = from_spacing((1.5, 1.5, 10), origin=(4, 5, 6))
    volume = dense_affine(stack, 2.5, start=-0.2)
    places = np.array([0, 2.3, 4.8])
    np.testing.assert_allclose(offsets(places, volume, stack), [0.2, 0, 0], atol=1e-12)
