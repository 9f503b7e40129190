from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import numpy as np
import pytest
from faults.dicom_checks import check_is, refused
from faults.dicom_writer import OBLIQUE, image, long_axis, save, short_axis
from pydicom import Dataset
from scipy.spatial.transform import Rotation

from calid.errors import CalidWarning, GeometryError, InputError
from calid.io.dicom import read_dicom

# Dozens of exams, each read from disk by a whole command.
pytestmark = pytest.mark.slow

# 19: scrambled order, one series a slice, cine, other views in the folder


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_instance_numbers_and_file_names_do_not_matter(tmp_path, seed):
    images = short_axis()
    numbers = np.random.default_rng(seed + 100).permutation(len(images))
    for data, number in zip(images, numbers, strict=True):
        data.InstanceNumber = int(number)
    found = read_dicom(save(images, tmp_path / "exam", shuffle=seed))
    assert found.stack.shape == (3, 4, 12, 10)
    check_is(found, images, 4)
    np.testing.assert_allclose(found.stack.positions, [0, 10, 20, 30], atol=1e-4)
    np.testing.assert_allclose(found.stack.frame_times, [0, 0.04, 0.08])


def test_one_series_for_all_slices_is_the_same(tmp_path):
    images = short_axis(series=5)
    found = read_dicom(save(images, tmp_path, shuffle=1))
    check_is(found, images, 4)


@pytest.mark.parametrize("first", [True, False])
def test_long_axis_views_are_left_out_whatever_their_names(tmp_path, first):
    images, views = short_axis(), long_axis()
    for name, part in (("4ch", images), ("sax", views)):
        for data in part:
            data.SeriesDescription = name
    save(views + images if first else images + views, tmp_path, shuffle=3)
    with pytest.warns(CalidWarning, match=r"1 other view is left out \(3 images\)"):
        found = read_dicom(tmp_path)
    check_is(found, images, 4)
    (view,) = found.report.left_out
    assert (view.reason, view.images, view.planes, view.angle_deg) == ("another view", 3, 1, 90)
    assert view.series == (70,)


def test_a_stack_that_another_sequence_planned_is_left_out(tmp_path):
    images = short_axis()
    other = short_axis((1, 11, 21), phases=1, matrix=(24, 20), series=50)
    with pytest.warns(CalidWarning, match="1 other view"):
        found = read_dicom(save(images + other, tmp_path))
    check_is(found, images, 4)
    assert found.report.left_out[0].reason == "another stack"


def two_stacks() -> tuple[list[Dataset], list[Dataset]]:
    """Series 5 and 6: the same planes twice, as an exam holds what was repeated."""
    return short_axis(series=5), short_axis(matrix=(14, 10), series=6)


@pytest.mark.parametrize("number", [5, 6])
def test_of_two_stacks_that_one_is_read_whose_series_is_named(tmp_path, number):
    images = dict(zip((5, 6), two_stacks(), strict=True))
    path = save(images[5] + images[6], tmp_path, shuffle=4)
    assert "--series" in refused(path, GeometryError, "two stacks of 4 slices").remedy
    found = read_dicom(path, series=[number])
    check_is(found, images[number], 4)
    (other,) = found.report.left_out
    assert (other.reason, other.images) == ("of another series", 12)


def test_slices_of_several_series_can_be_named(tmp_path):
    path = save(short_axis(), tmp_path, shuffle=4)
    found = read_dicom(path, series=[10, 12, 11])
    np.testing.assert_allclose(found.stack.positions, [0, 10, 20], atol=1e-4)


def test_a_series_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path):
    path = save([*chain(*two_stacks())], tmp_path)
    error = refused(path, InputError, "no image of series 7", series=[5, 7])
    assert error.remedy == "Series with images: 5, 6."


def test_a_film_goes_before_a_scout_of_the_whole_chest(tmp_path):
    scout = short_axis(range(0, 120, 10), phases=1, axes=OBLIQUE[:, [2, 0, 1]], series=50)
    with pytest.warns(CalidWarning, match=r"1 other view is left out \(12 images\)"):
        assert read_dicom(save(scout + short_axis(), tmp_path)).stack.shape[:2] == (3, 4)


@pytest.mark.parametrize(
    ("heights", "phases"),
    [((10,), 3), ((5, 25), 1), ((5, 25), 8), ((90,), 3)],
    ids=["at a slice", "stills", "perfusion", "far away"],
)
def test_images_that_fill_no_hole_of_the_stack_are_left_out(tmp_path, heights, phases):
    other = short_axis(heights, phases=phases, matrix=(24, 20), series=50)
    with pytest.warns(CalidWarning, match="1 other view"):
        found = read_dicom(save(short_axis() + other, tmp_path))
    assert found.stack.shape[:2] == (3, 4)
    assert found.report.left_out[0].reason == "other images near the stack"


def test_two_exams_are_refused(tmp_path):
    images = short_axis()
    images[-1].PatientID = "another"
    refused(save(images, tmp_path), InputError, "of 2 exams")


# 20: unequal gaps


@pytest.mark.parametrize(
    ("heights", "match"),
    [
        ((0, 10, 20, 40), r"gaps between slices are 10 to 20 mm. Is a slice missing\?"),
        ((0, 8, 20, 28), r"8 to 12 mm. Is"),
        ((0, 10.3, 19.7, 30.1), r"9.4 to 10.4 mm.$"),
    ],
)
def test_true_positions_are_kept(tmp_path, heights, match):
    images = short_axis(heights)
    with pytest.warns(CalidWarning, match=match):
        found = read_dicom(save(images, tmp_path, shuffle=2))
    np.testing.assert_allclose(found.stack.positions, heights, atol=1e-4)
    check_is(found, images, 4)
    assert np.linalg.norm(found.stack.affine[:3, 2]) == pytest.approx(heights[-1] / 3, abs=1e-4)


# 21: slices that do not fit the others


def twice_in_one_series(images: list[Dataset]) -> list[Dataset]:
    """The times and the numbers of a series come twice, so that nothing tells takes apart."""
    return images + [image(10, p, series=11, number=p + 1) for p in range(3)]


def turned(images: list[Dataset]) -> list[Dataset]:
    axes = OBLIQUE @ Rotation.from_euler("x", 5, degrees=True).as_matrix()
    return images[:6] + [image(20, p, axes=axes, series=12) for p in range(3)] + images[9:]


def turned_in_plane(images: list[Dataset]) -> list[Dataset]:
    axes = OBLIQUE @ Rotation.from_euler("z", 5, degrees=True).as_matrix()
    return images[:6] + [image(20, p, axes=axes, series=12) for p in range(3)] + images[9:]


def other_matrix(images: list[Dataset]) -> list[Dataset]:
    return images[:6] + [image(20, p, matrix=(14, 10), series=12) for p in range(3)] + images[9:]


def other_pixels(images: list[Dataset]) -> list[Dataset]:
    for data in images[6:9]:
        data.PixelSpacing = [1.2, 1.2]
    return images


def shifted(images: list[Dataset]) -> list[Dataset]:
    centre = np.array([20, -30, 40]) + OBLIQUE @ [6, 0, 0]
    return images[:6] + [image(20, p, centre=centre, series=12) for p in range(3)] + images[9:]


def frame_missing(images: list[Dataset]) -> list[Dataset]:
    return images[:7] + images[8:]


def frames_apart(images: list[Dataset]) -> list[Dataset]:
    return [*images[:8], image(20.5, 2, series=12), *images[9:]]


ODD = [
    (twice_in_one_series, r"at 10.0 mm \(series 11\) has 3 images of the same time as others", 3),
    (turned, r"1 slice \(3 images, series 12\) is turned by 5.0 degrees", 3),
    (turned_in_plane, r"series 12\) is turned by 5.0 degrees", 3),
    (other_matrix, r"series 12\) has a matrix of 14x10, not 12x10", 3),
    (other_pixels, r"has pixels of 1.2 x 1.2 mm, not 1.6 x 1.4 mm", 3),
    (shifted, r"is shifted by 6 mm within its plane", 3),
    (frame_missing, r"slice at 20.0 mm \(series 12\) has 2 frames, not 3", 3),
    (frames_apart, r"slice at 20.0 mm .* has images up to 0.5 mm apart", 3),
]


@pytest.mark.parametrize(("damage", "match", "left"), ODD, ids=[d[0].__name__ for d in ODD])
def test_odd_slices_are_refused_unless_they_may_be_left_out(
    tmp_path, damage: Callable[[list[Dataset]], list[Dataset]], match, left
):
    path = save(damage(short_axis()), tmp_path, shuffle=5)
    error = refused(path, GeometryError, match)
    assert "--odd-slices leave-out" in error.remedy
    with pytest.warns(CalidWarning) as caught:
        found = read_dicom(path, odd_slices="leave-out")
    assert any("left out: " in str(w.message) for w in caught)
    assert found.stack.n_slices == left
    assert found.stack.n_frames == 3
    assert len(found.report.left_out) == 1
    missing = 10 if damage is twice_in_one_series else 20
    places = [place for place in (0, 10, 20, 30) if place != missing]
    np.testing.assert_allclose(found.stack.positions, places, atol=1e-4)
    assert found.report.problems == []


def test_many_odd_slices_are_not_all_listed(tmp_path):
    images = short_axis((0, 10, 20, 30, 40, 50, 60, 70, 80, 90))
    for place in (1, 3, 5, 7):
        images[place * 3].ImagePositionPatient = images[-1].ImagePositionPatient
    error = refused(save(images, tmp_path), GeometryError, r"And 1 more\.")
    assert error.rule.count("has") == 3


def test_too_few_slices_left_are_no_stack(tmp_path):
    images = short_axis((0, 10, 20))[:-2]
    images[0].TriggerTime = images[1].TriggerTime
    refused(save(images, tmp_path), GeometryError, "at least 2", odd_slices="leave-out")


def test_slices_of_one_place_are_no_stack(tmp_path):
    refused(save(short_axis([0]), tmp_path), GeometryError, "at least 2 parallel slices")
