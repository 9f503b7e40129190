"""Slices whose heart lies off its neighbours are found, told by number and size, and moved back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from calid.data.phantom import HeartPhantom
from calid.errors import CalidWarning
from calid.segmentation.segment import Segmenter, load_segmenter
from calid.segmentation.shifts import (
    LEAST,
    Shift,
    checked,
    find_shifts,
    off_the_curve,
    undone,
)
from calid.stack import SliceStack

PLACES = np.arange(9) * 10.0


def curve(kind: str) -> np.ndarray:
    """Centres in mm along a heart's axis, shape ``(9, 2)``."""
    along = PLACES / PLACES[-1]
    rows = {"straight": 30 * along, "bent": 25 * along**2, "s": 6 * np.sin(5 * along)}[kind]
    return np.stack([60 + rows, 70 - 12 * along], 1)


@pytest.mark.parametrize("kind", ["straight", "bent", "s"])
def test_a_smooth_curve_is_no_shift(kind):
    noise = np.random.default_rng(0).normal(0, 0.4, (9, 2))
    assert off_the_curve(curve(kind) + noise, PLACES) == []


@pytest.mark.parametrize("kind", ["straight", "bent"])
@pytest.mark.parametrize("number", range(1, 8))
def test_a_slice_off_the_curve_is_found_wherever_it_lies(kind, number):
    centres = curve(kind)
    centres[number] += (4.0, -3.0)
    (found,) = off_the_curve(centres, PLACES)
    assert found.slice == number
    assert (found.rows_mm, found.columns_mm) == pytest.approx((4, -3), abs=0.8)


def test_several_slices_are_found_and_outermost_ones_are_not_judged():
    centres = curve("straight")
    centres[2] += (0, 6)
    centres[6] += (-7, 0)
    centres[0] += (2, 2)
    assert [shift.slice for shift in off_the_curve(centres, PLACES)] == [2, 6]


@pytest.mark.parametrize("count", [0, 2, 3])
def test_too_few_centres_say_nothing(count):
    centres = np.full((9, 2), np.nan)
    centres[:count] = np.array([[0.0, 0], [50, 0], [0, 0]])[:count]
    assert off_the_curve(centres, PLACES) == []


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load_segmenter("cpu")


def shifted(stack: SliceStack, number: int, rows: float, columns: float) -> SliceStack:
    """A slice moved by millimetres in all frames."""
    data = stack.data.copy()
    steps = np.array([rows, columns]) / stack.pixel_spacing
    for frame in data:
        frame[number] = ndimage.shift(frame[number].astype(float), steps, order=1, mode="nearest")
    return replace(stack, data=data)


@pytest.mark.slow
def test_a_phantom_is_sound_and_its_moved_slice_is_found(segmenter):
    stack = HeartPhantom(5).acquire(gap=10.0)
    assert find_shifts(stack, segmenter) == []
    (found,) = find_shifts(shifted(stack, 4, 4.5, -4.5), segmenter)
    assert found.slice == 4
    assert found.size_mm == pytest.approx(6.4, abs=1.0)


@pytest.mark.slow
def test_shifts_are_told_and_moved_back_by_whole_pixels(segmenter):
    stack = HeartPhantom(5).acquire(gap=10.0)
    moved = shifted(stack, 3, 6.0, 3.0)
    with pytest.warns(CalidWarning, match=r"slice 3 \(counted from 0\) by [67]\.\d mm.*--fix"):
        same, facts = checked(moved, segmenter, fix=False)
    assert same is moved
    assert facts[0]["slice"] == 3
    assert facts[0]["moved_pixels"] == [0, 0]
    with pytest.warns(CalidWarning, match="moved back"):
        fixed, facts = checked(moved, segmenter, fix=True)
    assert facts[0]["moved_pixels"] == [-4, -2]
    inside = np.s_[:, 3, 8:-8, 8:-8]
    np.testing.assert_array_equal(fixed.data[inside], stack.data[inside])
    others = [k for k in range(stack.n_slices) if k != 3]
    np.testing.assert_array_equal(fixed.data[:, others], moved.data[:, others])
    assert find_shifts(fixed, segmenter) == []


def test_no_value_is_made_up_at_the_edge(small_stack):
    fixed = undone(small_stack, [Shift(2, 3.2, -2.8)])
    assert set(np.unique(fixed.data[:, 2])) <= set(np.unique(small_stack.data[:, 2]))
    np.testing.assert_array_equal(fixed.data[:, 2, :-2, 2:], small_stack.data[:, 2, 2:, :-2])


def test_the_limit_is_in_millimetres():
    centres = curve("straight")
    centres[4] += (LEAST - 0.3, 0)
    assert off_the_curve(centres, PLACES) == []
