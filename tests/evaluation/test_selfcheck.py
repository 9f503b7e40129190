"""Hiding a stack's own slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calid.baselines.rules import linear
from calid.errors import DataError
from calid.evaluation.selfcheck import self_check


def test_linear_is_level_with_itself(small_stack):
    check = self_check(small_stack, linear)
    assert check.slices.tolist() == [1, 3]
    assert check.gaps.tolist() == [20.0, 20.0]
    assert check.gain == 0


def test_half_the_error_is_six_decibels(small_stack):
    truth = self_check(small_stack, linear).truth.clip(0, 1)

    def better(images, *rest):
        assert images.shape[0] == 3  # hidden slices are hidden
        halfway = (linear(images, *rest).clip(0, 1) + truth) / 2
        return halfway

    check = self_check(small_stack, better)
    assert check.gain == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert check.mean("CaLID", "ssim") > check.mean("linear", "ssim")


def test_the_square_is_about_its_centre_and_inside(small_stack):
    wide = replace(small_stack, data=np.pad(small_stack.data, ((0, 0), (0, 0), (0, 0), (0, 150))))
    middle, left, end, beyond = (
        self_check(wide, linear, (0.5, share)).truth for share in (0.5, 0.4, 0.2, 0.0)
    )
    assert middle.shape == left.shape == beyond.shape
    assert middle.shape[2] == 128
    moved = round(0.1 * 191 * 1.4 / 1.5)  # pixels of 1.5 mm
    assert (
        min(np.abs(left[..., s:] - middle[..., : 128 - s]).max() for s in (moved - 1, moved)) == 0
    )
    np.testing.assert_array_equal(beyond, end)


def cut(stack, slices, rows=34):
    return replace(stack, data=stack.data[:, :slices, :rows], positions=stack.positions[:slices])


@pytest.mark.parametrize(
    ("slices", "rows", "reason"), [(2, 34, "three or more"), (3, 10, "24 mm or more")]
)
def test_what_cannot_be_checked_is_refused(small_stack, slices, rows, reason):
    with pytest.raises(DataError, match=reason):
        self_check(cut(small_stack, slices, rows), linear)


def test_slices_without_contrast_have_no_figures(small_stack):
    plain = replace(small_stack, data=np.zeros_like(small_stack.data))
    with pytest.raises(DataError, match="without contrast"):
        self_check(plain, linear)
