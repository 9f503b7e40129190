"""Bodies of known volume, and the phantom's heart."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from calid.data.phantom import HeartPhantom
from calid.errors import DataError, GeometryError
from calid.io.labels import LV, MYOCARDIUM, RV
from calid.segmentation.measures import (
    Measurement,
    cavity_volumes,
    ejection_fraction,
    heart_function,
    slab_widths,
)

SPACING = (0.5, 0.8)


def discs(radii: np.ndarray, label: int = LV) -> np.ndarray:
    """One frame of discs of these radii in mm, centred, on pixels of ``SPACING``."""
    y, x = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip((140, 90), SPACING, strict=True))
    distance = np.hypot(y[:, None], x)
    return (label * (distance < radii[:, None, None])).astype(np.uint8)[None]


@pytest.mark.parametrize(
    ("positions", "reach", "widths"),
    [
        ([0, 8, 16, 24], None, [8, 8, 8, 8]),  # every slice counts for one whole spacing
        ([0, 6, 16, 20], None, [6, 8, 7, 4]),
        ([0, 2, 4], (5.0, 3.0), [6, 2, 4]),
    ],
)
def test_gaps_are_shared_between_their_slices(positions, reach, widths):
    np.testing.assert_allclose(slab_widths(np.array(positions, float), reach), widths)


@pytest.mark.parametrize("positions", [[0.0], [0.0, 0.0], [1.0, 0.0], []])
def test_positions_that_do_not_increase_have_no_volume(positions):
    with pytest.raises(GeometryError):
        slab_widths(np.array(positions))


def test_a_cylinder_is_its_area_times_its_height():
    (found,) = cavity_volumes(discs(np.full(6, 30.0)), np.arange(6) * 10.0, SPACING)
    assert found.lv_ml == pytest.approx(np.pi * 30**2 * 60 / 1000, rel=2e-3)
    assert (found.rv_ml, found.myocardium_ml, found.mass_g) == (0, 0, 0)


def test_a_cone_between_uneven_slices_is_a_third_of_its_cylinder():
    random = np.random.default_rng(0)
    positions = np.cumsum(random.uniform(1, 4, 40))
    positions -= positions[0]
    height = positions[-1] + 1
    radii = 30 * (1 - positions / height)
    # The base is at the first slice: nothing of the cone lies below it.
    (found,) = cavity_volumes(discs(radii), positions, SPACING, reach=(0.0, 1.0))
    assert found.lv_ml == pytest.approx(np.pi * 30**2 * height / 3 / 1000, rel=0.01)


def test_unequal_gaps_do_not_change_the_volume_of_a_cylinder():
    labels = discs(np.full(4, 25.0))
    (even,) = cavity_volumes(labels, np.array([0.0, 10, 20, 30]), SPACING)
    (uneven,) = cavity_volumes(labels, np.array([0.0, 4, 22, 30]), SPACING, reach=(5, 5))
    assert uneven.lv_ml == pytest.approx(even.lv_ml)


def test_labels_go_to_their_own_volume_and_muscle_has_its_weight():
    labels = np.zeros((1, 2, 10, 10), np.uint8)
    labels[0, :, 0, :1], labels[0, :, 1, :3], labels[0, :, 2, :5] = RV, MYOCARDIUM, LV
    (found,) = cavity_volumes(labels, np.array([0.0, 10.0]), (10.0, 10.0))
    assert (found.rv_ml, found.myocardium_ml, found.lv_ml) == pytest.approx((2, 6, 10))
    assert found.mass_g == pytest.approx(6 * 1.05)


def test_frames_are_measured_one_by_one_in_order():
    labels = np.concatenate([discs(np.full(3, r)) for r in (30.0, 20.0, 25.0)])
    found = cavity_volumes(labels, np.arange(3) * 10.0, SPACING)
    volumes = [frame.lv_ml for frame in found]
    np.testing.assert_allclose(np.array(volumes) / volumes[0], [1, 4 / 9, 25 / 36], rtol=5e-3)


def test_a_frame_without_a_left_ventricle_is_an_error_that_names_it():
    labels = np.concatenate([discs(np.full(3, 20.0)), discs(np.full(3, 20.0), RV)])
    with pytest.raises(DataError, match=r"film\.nii: No slice of frame 1"):
        cavity_volumes(labels, np.arange(3) * 10.0, SPACING, source="film.nii")


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 4, 4)])
def test_labels_that_do_not_fit_the_positions_are_refused(shape):
    with pytest.raises(GeometryError):
        cavity_volumes(np.ones(shape, np.uint8), np.array([0.0, 10.0]), SPACING)


def test_ejection_fraction_is_a_percentage_of_the_full_ventricle():
    assert ejection_fraction(120.0, 48.0) == pytest.approx(60.0)
    for edv in (0.0, -1.0, np.nan):
        with pytest.raises(DataError):
            ejection_fraction(edv, 0.0)


def test_function_takes_the_fullest_and_the_emptiest_left_ventricle():
    frames = [Measurement(*row) for row in ((90, 200, 99), (120, 150, 100), (50, 60, 101))]
    found = heart_function(frames)
    assert (found.ed_frame, found.es_frame) == (1, 2)
    assert found.lv.sv_ml == 70
    assert found.lv.ef_percent == pytest.approx(100 * 70 / 120)
    assert found.rv is not None
    assert found.rv.ef_percent == pytest.approx(60.0), "at the frames of the left ventricle"
    assert found.ed_mass_g == pytest.approx(105.0)
    assert found.figures()["rv_edv_ml"] == 150


def test_a_known_pair_keeps_its_order():
    found = heart_function([Measurement(50, 60, 100), Measurement(120, 150, 100)], ed=0, es=1)
    assert (found.ed_frame, found.es_frame) == (0, 1)
    assert found.lv.sv_ml == -70


def test_labels_without_a_right_ventricle_still_give_the_left_one():
    found = heart_function([Measurement(100, 0, 90), Measurement(40, 0, 90)])
    assert found.rv is None
    assert found.figures()["lv_ef_percent"] == pytest.approx(60)
    assert found.figures()["rv_ef_percent"] is None


def test_one_frame_has_no_function():
    with pytest.raises(DataError):
        heart_function([Measurement(100, 100, 100)])


@cache
def phantom(seed: int) -> HeartPhantom:
    return HeartPhantom(seed)


def scan(seed: int, step: float) -> list[Measurement]:
    """Diastole and systole of a phantom's own labels in slices this far apart."""
    heart, frames = phantom(seed), []
    side = np.arange(-95, 95, 2.0, dtype=np.float32) + 1
    positions = np.arange(-22, heart.apex + 3, step)
    for phase in (0.0, heart.end_systole):
        z = positions.astype(np.float32)[:, None, None]
        labels = heart.label(side, side[:, None], z, phase)[None]
        frames += cavity_volumes(labels, positions, (2.0, 2.0))
    return frames


@pytest.mark.parametrize("seed", [0, 3, 4])
def test_discs_of_a_dense_phantom_agree_with_its_exact_volumes(seed):
    heart, found = phantom(seed), scan(seed, 2.0)
    exact = heart.volumes((0.0, heart.end_systole))
    for name, truth in (
        ("lv_ml", exact.lv),
        ("rv_ml", exact.rv),
        ("myocardium_ml", exact.myocardium),
    ):
        np.testing.assert_allclose([getattr(f, name) for f in found], truth, rtol=0.02)
    fraction = heart_function(found).lv.ef_percent
    assert fraction == pytest.approx(100 * heart.ejection_fraction, abs=1.0)


def test_clinical_gaps_measure_the_phantom_less_exactly_than_dense_slices():
    errors = {}
    for step in (2.0, 10.0):
        misses = []
        for seed in (0, 3, 4):
            truth = phantom(seed).volumes((0.0, phantom(seed).end_systole)).lv
            found = [frame.lv_ml for frame in scan(seed, step)]
            misses.append(np.abs(np.array(found) / truth - 1))
        errors[step] = float(np.mean(misses))
    assert errors[2.0] < errors[10.0] < 0.2
