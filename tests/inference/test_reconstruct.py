from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calid.baselines.rules import linear, nearest
from calid.errors import CalidWarning, GeometryError, UsageError
from calid.geometry.dense_grid import offsets
from calid.inference.densify import choose_factor, densify, fill, plan
from calid.inference.options import choose_samples
from calid.stack import SliceStack, Volume


def twice(stack: SliceStack, factor: int, uncertainty: bool = False) -> Volume:
    """Two samples, one grey level (of the window) below and above linear."""

    def method(images, positions, targets, spacing):
        answer = np.stack([linear(x, positions, targets, spacing) for x in images])
        yield slice(0, len(targets)), np.stack([answer - 0.01, answer + 0.01])

    return fill(stack, method, plan(stack, factor), uncertainty)


@pytest.mark.parametrize("factor", [1, 2, 7])
def test_acquired_slices_stand_at_multiples_of_the_factor_bit_for_bit(small_stack, factor):
    volume = twice(small_stack, factor)
    assert volume.data.shape[1] == (small_stack.n_slices - 1) * factor + 1
    assert volume.data.dtype == small_stack.data.dtype
    np.testing.assert_array_equal(volume.data[:, ::factor], small_stack.data)
    np.testing.assert_array_equal(np.flatnonzero(volume.acquired) % factor, 0)
    np.testing.assert_allclose(volume.positions[::factor], small_stack.positions)


def test_linear_through_the_whole_path_is_linear_in_stored_units(small_stack):
    # Clipping the window would bend the answer: keep all values inside it.
    stack = replace(small_stack, data=np.clip(small_stack.data, 5, 295).astype(np.int16))
    volume = twice(stack, 4)
    low, high = stack.data[:, 1].astype(float), stack.data[:, 2].astype(float)
    np.testing.assert_allclose(volume.data[:, 5], 0.75 * low + 0.25 * high, atol=0.51)


def test_generated_slices_stay_within_the_range_of_the_stack(small_stack):
    def wild(*arguments):
        answer = linear(*arguments)
        return np.where(answer > 0.5, 1.5, -3.0).astype(np.float32)

    volume = densify(small_stack, wild, 3)
    assert volume.data.min() >= small_stack.data.min()
    assert volume.data.max() <= small_stack.data.max()


def test_uncertainty_is_the_deviation_over_samples_in_image_units(small_stack):
    volume = twice(small_stack, 2, uncertainty=True)
    low, high = np.percentile(small_stack.data, (0.5, 99.5))
    expected = np.sqrt(2) * 0.01 * (high - low) * small_stack.intensity.slope
    np.testing.assert_allclose(volume.uncertainty[:, ~volume.acquired], expected, rtol=1e-3)
    assert not volume.uncertainty[:, volume.acquired].any()


def test_the_physical_place_of_every_acquired_voxel_is_kept(small_stack):
    volume = twice(small_stack, 4)
    voxel = np.array([3, 5, 2, 1.0])
    np.testing.assert_allclose(
        volume.affine @ (voxel * [1, 1, 4, 1]), small_stack.affine @ voxel, atol=1e-9
    )


def with_positions(stack: SliceStack, positions: list[float]) -> SliceStack:
    mean = (positions[-1] - positions[0]) / (len(positions) - 1)
    affine = stack.affine.copy()
    affine[:3, 2] *= mean / np.linalg.norm(affine[:3, 2])
    places = np.array(positions)
    return replace(stack, affine=affine, positions=places, data=stack.data[:, : len(places)])


def test_unequal_gaps_are_cut_by_one_step_into_as_many_as_they_hold(small_stack):
    dense = plan(with_positions(small_stack, [0, 8, 20]), 4)
    np.testing.assert_allclose(dense.positions, np.arange(0, 21, 2))
    np.testing.assert_array_equal(np.flatnonzero(dense.acquired), [0, 4, 10])


def test_a_missing_slice_is_generated_at_true_distances(small_stack):
    stack = with_positions(small_stack, [0, 10, 20, 40])
    asked = []

    def method(images, positions, targets, spacing):
        asked.append((positions, targets))
        return linear(images, positions, targets, spacing)

    volume = densify(stack, method, 2)
    assert volume.spacing[0] == pytest.approx(5)
    np.testing.assert_array_equal(np.flatnonzero(volume.acquired), [0, 2, 4, 8])
    np.testing.assert_array_equal(volume.data[:, [0, 2, 4, 8]], stack.data)
    np.testing.assert_allclose(asked[0][0], [0, 10, 20, 40])
    np.testing.assert_allclose(asked[0][1], [5, 15, 25, 30, 35])
    low, high = stack.data[0, 2].astype(float), stack.data[0, 3].astype(float)
    inside = (np.minimum(low, high) > 5) & (np.maximum(low, high) < 295)
    np.testing.assert_allclose(
        volume.data[0, 5][inside], (0.75 * low + 0.25 * high)[inside], atol=0.51
    )


def test_jitter_keeps_slices_untouched_and_true_positions(small_stack):
    stack = with_positions(small_stack, [0, 10.3, 19.8, 30.2, 39.9])
    asked = []

    def method(images, positions, targets, spacing):
        asked.append((positions, targets))
        return linear(images, positions, targets, spacing)

    with pytest.warns(CalidWarning, match="up to 0.2. mm beside"):
        volume = densify(stack, method, 5)
    np.testing.assert_array_equal(volume.data[:, ::5], stack.data)
    np.testing.assert_array_equal(asked[0][0], stack.positions)
    np.testing.assert_array_equal(volume.positions[volume.acquired], stack.positions)
    # Generated slices lie exactly on the planes that the affine says.
    beside = offsets(volume.positions, volume.affine, stack.affine)
    np.testing.assert_allclose(beside[~volume.acquired], 0, atol=1e-9)
    assert 0.2 < np.abs(beside[volume.acquired]).max() < 0.3


def test_gaps_that_fit_no_grid_are_refused(small_stack):
    stack = with_positions(small_stack, [0, 10, 16.7, 31])
    with pytest.raises(GeometryError, match=r"6.7 to 14.3 mm fit no even planes.*`spacing`"):
        densify(stack, linear, 1)


def test_without_a_wish_the_factor_is_the_nearest_to_isotropic(small_stack):
    assert choose_factor(small_stack, None, None) == 7  # 10 mm over 1.5 mm is 6.67
    assert choose_factor(small_stack, None, 2.4) == 4
    assert choose_factor(small_stack, None, 100.0) == 1
    assert choose_factor(small_stack, 3, None) == 3


@pytest.mark.parametrize(("factor", "spacing"), [(2, 1.0), (0, None), (None, 0.0), (None, np.nan)])
def test_impossible_wishes_are_refused(small_stack, factor, spacing):
    with pytest.raises(UsageError):
        choose_factor(small_stack, factor, spacing)


def test_a_constant_stack_stays_constant(small_stack: SliceStack):
    stack = replace(small_stack, data=np.full_like(small_stack.data, 42))
    assert (densify(stack, linear, 3).data == 42).all()


def test_nearest_and_linear_at_an_acquired_position_are_that_slice():
    images = np.random.default_rng(1).random((3, 4, 5), np.float32)
    places = np.array([0.0, 8.0, 20.0])
    for method in (nearest, linear):
        np.testing.assert_allclose(method(images, places, places, (1, 1)), images, atol=1e-7)
    quarter = linear(images, places, np.array([11.0]), (1, 1))[0]
    np.testing.assert_allclose(quarter, 0.75 * images[1] + 0.25 * images[2], atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "preset", "uncertainty", "expected"),
    [
        (None, "default", False, 0),
        (None, "paper", False, 1),
        (None, "default", True, 8),
        (None, "paper", True, 8),
        (3, "default", True, 3),
        (0, "default", False, 0),
    ],
)
def test_the_number_of_samples_fits_what_is_asked_for(samples, preset, uncertainty, expected):
    assert choose_samples(samples, preset, uncertainty) == expected


@pytest.mark.parametrize("samples", [0, 1])
def test_a_standard_deviation_of_fewer_than_two_samples_is_refused(samples):
    with pytest.raises(UsageError, match="2 samples"):
        choose_samples(samples, "default", True)
