from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from calid.data.phantom import HeartPhantom, slice_profile
from calid.errors import CalidError

SEEDS = (0, 3, 4)  # dilated, normal, hypertrophic


@cache
def phantom(seed: int) -> HeartPhantom:
    return HeartPhantom(seed)


@cache
def label_grid(seed: int, systole: bool, step: float = 1.0) -> np.ndarray:
    """Labels on a grid of ``step`` mm that holds both ventricles, axes (z, y, x)."""
    p = phantom(seed)
    side = np.arange(-95, 95, step, dtype=np.float32) + step / 2
    z = np.arange(-22, p.apex + 3, step, dtype=np.float32) + step / 2
    phase = p.end_systole if systole else 0.0
    return p.label(side[None, None, :], side[None, :, None], z[:, None, None], phase)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_arrays() -> None:
    kwargs = {"spacing": 3.0, "slices": 3, "phases": (0.0, 0.3), "breath_hold_shift": 2.0}
    first, again = HeartPhantom(7).acquire(**kwargs), HeartPhantom(7).acquire(**kwargs)
    np.testing.assert_array_equal(first.data, again.data)
    used = HeartPhantom(7)
    used.dense(spacing=6.0)
    np.testing.assert_array_equal(used.acquire(**kwargs).data, first.data)


def test_other_seeds_give_other_hearts() -> None:
    volumes = [phantom(s).volumes((0.0,)).lv[0] for s in SEEDS]
    assert len(set(volumes)) == len(SEEDS)
    images = [phantom(s).dense(spacing=4.0, depth=40.0).data for s in SEEDS[:2]]
    assert np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1] < 0.95


def test_the_beat_is_periodic_and_moves() -> None:
    p = phantom(0)
    side = np.linspace(-60, 60, 25)
    x, y = side[None, :], side[:, None]
    start, next_beat = p.intensity(x, y, 40.0, 0.2), p.intensity(x, y, 40.0, 1.2)
    np.testing.assert_allclose(start, next_beat, atol=1e-5)
    before, after = p.volumes((1 - 1e-4, 1e-4)).lv
    assert before == pytest.approx(after, rel=1e-3)
    assert np.abs(p.intensity(x, y, 40.0, p.end_systole) - p.intensity(x, y, 40.0, 0.0)).max() > 0.2


def test_an_array_of_phases_equals_phase_by_phase() -> None:
    p = phantom(1)
    phases = np.array([0.0, 0.3, 0.0])[:, None]
    x = np.linspace(-30, 50, 9)
    together = p.intensity(x, 5.0, 30.0, phases)
    assert together.shape == (3, 9)
    assert together.dtype == np.float32
    for row, phase in zip(together, phases.ravel(), strict=True):
        np.testing.assert_allclose(row, p.intensity(x, 5.0, 30.0, phase), atol=1e-6)


@pytest.mark.parametrize("seed", range(16))
def test_volumes_are_those_of_a_living_adult(seed: int) -> None:
    p = HeartPhantom(seed)
    phases = np.linspace(0, 1, 21, endpoint=False)
    volumes = p.volumes((*phases, p.end_systole))
    assert 60 < volumes.lv[0] < 350
    assert 60 < volumes.rv[0] < 300
    assert 60 < volumes.myocardium[0] < 280
    assert volumes.lv[-1] == pytest.approx(volumes.lv.min(), rel=1e-6)
    assert volumes.lv[0] == pytest.approx(volumes.lv.max(), rel=1e-6)
    assert 0.0 < volumes.rv[-1] < volumes.rv[0]
    assert 0.20 <= p.ejection_fraction <= 0.75
    assert p.ejection_fraction == pytest.approx(p.anatomy.ejection_fraction, abs=0.005)
    assert np.ptp(volumes.myocardium) < 0.08 * volumes.myocardium[0]


@pytest.mark.slow
@pytest.mark.parametrize("systole", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_exact_volumes_agree_with_counted_voxels(seed: int, systole: bool) -> None:
    p = phantom(seed)
    counted = np.bincount(label_grid(seed, systole).ravel(), minlength=4)[1:] / 1000
    exact = p.volumes((p.end_systole if systole else 0.0,))
    assert exact.rv[0] == pytest.approx(counted[0], rel=0.005)
    assert exact.myocardium[0] == pytest.approx(counted[1], rel=0.005)
    assert exact.lv[0] == pytest.approx(counted[2], rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("systole", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_left_ventricle_is_a_closed_ring(seed: int, systole: bool) -> None:
    labels, p = label_grid(seed, systole), phantom(seed)
    base = 35 if systole else 12  # clear of the tilted valve plane
    labels = labels[22 + base :]
    touched = ndimage.binary_dilation(labels == 3) & (labels != 3)
    assert set(np.unique(labels[touched])) == {2}
    assert ndimage.label(labels == 3)[1] == 1
    assert ndimage.label(labels == 2)[1] == 1
    assert not (labels[-3:] > 0).any(), "the apex closes"
    assert (labels[int(p.apex) - base - 8] == 2).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_contrast_is_that_of_cine_images(seed: int) -> None:
    p = phantom(seed)
    side = np.arange(-95, 95, 2.0)
    grid = side[None, None, :], side[None, :, None], np.array([20.0, 35.0, 50.0])[:, None, None]
    image, label = p.intensity(*grid), p.label(*grid)
    blood, muscle = image[label == 3], image[label == 2]
    assert np.median(blood) > 2 * np.median(muscle)
    assert np.median(image[label == 1]) > 1.5 * np.median(muscle)
    assert 0.1 < np.percentile(image, 60) < 0.5
    assert image.min() >= 0
    assert image.max() < 1.6


def test_edges_are_soft() -> None:
    line = phantom(0).intensity(np.arange(-90, 90, 0.1), 3.0, 42.0)
    assert np.abs(np.diff(line)).max() < 0.25


def test_thin_noise_free_slices_are_the_dense_truth() -> None:
    p = phantom(2)
    stack = p.acquire(gap=9.0, thickness=0.0, noise=0.0, spacing=3.0)
    dense = p.dense(spacing=3.0)
    np.testing.assert_array_equal(stack.data[0], dense.data[0, ::3][: stack.n_slices])
    np.testing.assert_allclose(stack.positions, dense.positions[::3][: stack.n_slices])
    np.testing.assert_allclose(stack.affine[:, [0, 1, 3]], dense.affine[:, [0, 1, 3]])


def test_a_thick_slice_is_the_profile_weighted_mean_of_planes() -> None:
    p = phantom(2)
    stack = p.acquire(thickness=8.0, noise=0.0, spacing=3.0, slices=2, start=70.0)
    side = (np.arange(64) - 31.5) * 3.0
    fine = np.linspace(-5, 5, 41)
    weight = np.clip((5.0 - np.abs(fine)) / 2.0, 0, 1)
    planes = p.intensity(side[None, None, :], side[None, :, None], 70.0 + fine[:, None, None])
    mean = np.tensordot(weight / weight.sum(), planes, axes=1) * p.scale
    error = np.abs(stack.data[0, 0] - mean)
    assert error.mean() < 0.01 * p.scale
    thin = p.acquire(thickness=0.0, noise=0.0, spacing=3.0, slices=2, start=70.0)
    assert error.mean() < 0.5 * np.abs(thin.data[0, 0] - mean).mean()


def test_slice_profile_has_the_stated_width() -> None:
    offsets, weights = slice_profile(8.0)
    assert offsets.size >= 7
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights, weights[::-1])
    assert np.all(np.abs(offsets) < 5)
    assert slice_profile(0.0)[0].tolist() == [0.0]


def test_dense_geometry() -> None:
    p = phantom(1)
    volume = p.dense(spacing=4.0, field_of_view=160.0, depth=80.0, phases=(0.0, 0.5), start=-4.0)
    assert volume.data.shape == (2, 21, 40, 40)
    assert volume.data.dtype == np.int16
    assert volume.spacing == (4.0, 4.0, 4.0)
    assert not volume.acquired.any()
    np.testing.assert_allclose(volume.frame_times, [0.0, 0.5 * p.period])
    assert 0.8 <= p.period <= 1.1
    # Voxel (column 30, row 10, slice 5) is the point that its world coordinates name.
    world = volume.affine @ [30, 10, 5, 1]
    value = p.intensity(-world[0], -world[1], world[2]) * p.scale
    assert volume.data[0, 5, 10, 30] == pytest.approx(float(value), abs=0.51)


@pytest.mark.slow
def test_stack_spans_the_ventricle_in_stored_units() -> None:
    for seed in SEEDS:
        p = phantom(seed)
        stack = p.acquire(spacing=3.0)
        assert 8 <= stack.n_slices <= 13
        assert stack.positions[-1] + stack.affine[2, 3] > p.apex - 6
        assert 150 < np.percentile(stack.data, 99.5) < 600
        assert np.diag(stack.affine)[:3].tolist() == [-3.0, -3.0, 10.0]
        assert (stack.intensity.slope, stack.intensity.intercept) == (1.0, 0.0)
        assert stack.rank == 3


@pytest.mark.slow
def test_noise_is_rician_and_of_the_asked_size() -> None:
    p = phantom(0)
    clean = p.acquire(noise=0.0, spacing=2.0, slices=3).data.astype(float)
    noisy = p.acquire(noise=0.05, spacing=2.0, slices=3).data.astype(float)
    bright, air = clean > 0.5 * p.scale, clean < 0.03 * p.scale
    assert np.std((noisy - clean)[bright]) == pytest.approx(0.05 * p.scale, rel=0.1)
    assert noisy[air].mean() > clean[air].mean() + 0.03 * p.scale
    np.testing.assert_array_equal(clean, p.acquire(noise=0.0, spacing=2.0, slices=3).data)


def test_breath_hold_shift_moves_a_slice_the_same_in_all_frames() -> None:
    p = phantom(3)
    kwargs = {"noise": 0.0, "spacing": 3.0, "slices": 3, "start": 20.0, "thickness": 0.0}
    still = p.acquire(**kwargs).data[0]
    moved = p.acquire(**kwargs, phases=(0.0, 0.0), breath_hold_shift=4.0).data
    assert all((moved[0, k] != still[k]).mean() > 0.3 for k in range(3))
    np.testing.assert_array_equal(moved[0], moved[1])


@pytest.mark.parametrize(
    "kwargs", [{"gap": 0.0}, {"thickness": -1.0}, {"spacing": 0.0}, {"spacing": 500.0}]
)
def test_impossible_scans_are_refused(kwargs: dict[str, float]) -> None:
    with pytest.raises(CalidError):
        phantom(0).acquire(**kwargs)
