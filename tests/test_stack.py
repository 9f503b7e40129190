"""A stack or volume whose parts do not fit is refused where it is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calid.errors import GeometryError
from calid.stack import SliceStack, Volume


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"data": np.zeros((5, 34, 41))}, "four axes"),
        ({"data": np.zeros((2, 5, 0, 41))}, "none empty"),
        ({"data": np.zeros((2, 1, 3, 4)), "positions": np.zeros(1)}, "at least 2 slices"),
        ({"positions": np.arange(4.0)}, "4 positions and 2 frame times"),
        ({"frame_times": np.zeros(3)}, "5 positions and 3 frame times"),
        ({"positions": np.array([0.0, 10, 10, 20, 30])}, "increase strictly"),
        ({"positions": np.array([0.0, 10, np.nan, 20, 30])}, "increase strictly"),
    ],
)
def test_parts_of_a_stack_fit(small_stack: SliceStack, changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(GeometryError, match=rule):
        replace(small_stack, source="scan.nii", **changes)


def test_a_stack_knows_its_sizes(small_stack: SliceStack) -> None:
    assert (small_stack.n_frames, small_stack.n_slices) == (2, 5)
    assert small_stack.shape == (2, 5, 34, 41)
    assert small_stack.pixel_spacing == (1.6, 1.4)
    np.testing.assert_array_equal(small_stack.gaps, [10, 10, 10, 10])


def test_parts_of_a_volume_fit(small_stack: SliceStack) -> None:
    acquired = np.ones(5, bool)
    parts = (small_stack.data, small_stack.affine, small_stack.positions, acquired)
    volume = Volume(*parts, small_stack.frame_times)
    assert volume.spacing == (10.0, 1.6, 1.4)
    assert volume.pixel_spacing == (1.6, 1.4)
    for changes in ({"acquired": acquired[1:]}, {"positions": small_stack.positions[1:]}):
        with pytest.raises(GeometryError, match="do not fit 5 slices"):
            replace(volume, **changes)
