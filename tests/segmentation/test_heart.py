"""Where the heart is: the box around it, and slices that lie off their neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from calid.data.phantom import HeartPhantom
from calid.errors import CalidWarning
from calid.geometry.affine import from_spacing
from calid.runtime import choose_runtime
from calid.segmentation.heart import (
    SHIFT,
    Shift,
    checked,
    find_shifts,
    heart_region,
    off_the_curve,
    undone,
)
from calid.segmentation.segment import Segmenter, load_segmenter
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
    with pytest.warns(
        CalidWarning, match=r"slice 3 \(counted from 0\) by [67]\.\d mm.*`fix_shifts`"
    ):
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
    centres[4] += (SHIFT - 0.3, 0)
    assert off_the_curve(centres, PLACES) == []


class Bright(nn.Module):
    """What is bright is left ventricle."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([torch.full_like(images, 0.7), images * 0, images * 0, images], 1)


@pytest.fixture
def bright() -> Segmenter:
    return Segmenter(Bright(), choose_runtime("cpu"))  # type: ignore[arg-type]


def stack_of(data: np.ndarray) -> SliceStack:
    return SliceStack(
        data=data.astype(np.int16),
        affine=from_spacing((1.5, 1.5, 10.0)),
        positions=10.0 * np.arange(data.shape[1]),
        thickness=8.0,
        frame_times=np.arange(len(data), dtype=float),
        source="made up",
        rank=4 if len(data) > 1 else 3,
    )


def dim(frames: int = 1) -> np.ndarray:
    data = np.zeros((frames, 3, 160, 192))
    data[..., ::9, ::9] = 100  # so that the window is the same without a heart
    return data


def test_the_box_is_about_the_largest_piece_in_all_slices_and_frames(bright):
    data = dim(frames=6)
    data[:, 0, 60:90, 70:100] = 100
    data[:, 1, 60:90, 64:100] = 100
    data[4, 1, 60:98, 70:100] = 100  # larger in one of the frames that are looked at
    data[:, 2, 5:12, 180:190] = 100  # something bright elsewhere
    region = heart_region(stack_of(data), bright)
    assert region is not None
    assert region.rows[0] <= 60 - 5 < 98 + 5 <= region.rows[1]
    assert region.columns[0] <= 64 - 5 < 100 + 5 <= region.columns[1]
    assert region.columns[1] < 170
    assert region.share < 0.5


def test_nothing_or_next_to_nothing_is_no_heart(bright):
    data = dim()
    assert heart_region(stack_of(data), bright) is None
    data[0, 1, 60:70, 60:70] = 100  # 225 square millimetres
    assert heart_region(stack_of(data), bright) is None


def test_a_box_that_saves_nothing_is_none(bright):
    data = dim()
    data[0, :, 20:140, 20:170] = 100
    assert heart_region(stack_of(data), bright) is None
