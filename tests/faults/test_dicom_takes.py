"""Slices that were acquired again: frames of a film are never of two takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults.dicom_checks import check_is, refused, warned
from faults.dicom_writer import OBLIQUE, encoded, enhanced, image, pixels, save
from pydicom import Dataset
from scipy.spatial.transform import Rotation

from calid.errors import CalidWarning, GeometryError
from calid.io.dicom import DicomStack, read_dicom

# Dozens of exams, each read from disk by a whole command.
pytestmark = pytest.mark.slow

FRAMES = 5


def take(
    heights: tuple[float, ...] = (0, 10, 20, 30),
    *,
    series: int = 10,
    delay: float = 0.0,
    frames: int = FRAMES,
    at: str = "",
    one_series: bool = False,
    **fields: object,
) -> list[Dataset]:
    """A film whose times begin ``delay`` ms after the R wave, acquired ``at`` a time of day."""
    images = [
        image(height, phase, number=phase + 1, series=series + place * (not one_series))
        for place, height in enumerate(heights)
        for phase in range(frames)
    ]
    for data in images:
        data.TriggerTime = float(data.TriggerTime) + delay
        if at:
            data.AcquisitionDate, data.AcquisitionTime = "20240506", at
        for keyword, value in fields.items():
            setattr(data, keyword, value)
    return images


def read(images: list[Dataset], folder: Path, match: str, **options: object) -> DicomStack:
    return warned(save(images, folder, shuffle=1), match, **options)


def used(found: DicomStack, slice_: int) -> set[int]:
    """Numbers of the series that a slice's frames are of."""
    return {int(row[slice_].SeriesNumber) for row in found.headers}


@pytest.mark.parametrize("odd_slices", ["refuse", "leave-out"])
@pytest.mark.parametrize("delay", [0.0, 7.0])
@pytest.mark.parametrize("height", [10.0, 10.4])
def test_of_a_repeated_slice_the_newest_take_is_read(tmp_path, height, delay, odd_slices) -> None:
    again = take((height,), series=50, delay=delay)
    match = r"acquired 2 times: series 50 \(5 images\) is used, the newest; series 11 \(5 images\)"
    found = read([*take(), *again], tmp_path, match, odd_slices=odd_slices)
    assert found.stack.data.shape[:2] == (FRAMES, 4)
    assert [used(found, n) for n in range(4)] == [{10}, {50}, {12}, {13}]
    for frame, data in enumerate(again):
        np.testing.assert_array_equal(found.stack.data[frame, 1], pixels(data))
    assert found.stack.positions[1] == pytest.approx(height, abs=1e-3)


def test_the_time_of_acquisition_goes_before_the_number_of_the_series(tmp_path) -> None:
    first = take(at="101500.5")
    again = take((10,), series=5, delay=3, at="102000")
    assert used(read([*first, *again], tmp_path, "series 5 .* is used, the newest"), 1) == {5}


def test_a_time_that_only_one_take_has_decides_nothing(tmp_path) -> None:
    found = read([*take(at="235900"), *take((10,), series=50)], tmp_path, "series 50 .* is used")
    assert used(found, 1) == {50}


def test_an_incomplete_take_is_not_used_though_it_is_newer(tmp_path) -> None:
    found = read(
        [*take(), *take((20,), series=50, frames=3, delay=2)], tmp_path, "the complete one"
    )
    assert used(found, 2) == {12}
    assert found.stack.n_frames == FRAMES


def test_a_single_image_of_another_series_is_no_frame(tmp_path) -> None:
    found = read([*take(), image(20, 1, series=90)], tmp_path, r"series 90 \(1 image\) is left out")
    assert used(found, 2) == {12}


def test_slices_that_were_repeated_twice_and_thrice(tmp_path) -> None:
    again = [*take((0,), series=50, delay=3), *take((0,), series=60), *take((10,), series=70)]
    found = read([*take(), *again], tmp_path, "acquired 3 times: series 60")
    assert [used(found, n) for n in range(4)] == [{60}, {70}, {12}, {13}]


def number_of_acquisition(images: list[Dataset]) -> None:
    for data in images:
        data.AcquisitionNumber = 2


def later(images: list[Dataset]) -> None:
    for data in images:
        data.AcquisitionDateTime = "20240506103000"


def numbers_go_on(images: list[Dataset]) -> None:
    for data in images:
        data.InstanceNumber = int(data.InstanceNumber) + FRAMES


@pytest.mark.slow
@pytest.mark.parametrize("tell", [number_of_acquisition, later, numbers_go_on])
@pytest.mark.parametrize("delay", [0.0, 5.0])
def test_two_takes_in_one_series_are_told_apart(
    tmp_path, tell: Callable[[list[Dataset]], None], delay
) -> None:
    first = take(AcquisitionNumber=1, AcquisitionDateTime="20240506101500")
    again = take((10,), series=11, delay=delay, AcquisitionNumber=1)
    for data in again:
        data.AcquisitionDateTime = "20240506101500"
    tell(again)
    found = read([*first, *again], tmp_path, "the slice at 10.0 mm was acquired 2 times")
    for frame, data in enumerate(again):
        np.testing.assert_array_equal(found.stack.data[frame, 1], pixels(data))


def same_matrix(images: list[Dataset]) -> list[Dataset]:
    return images


def fewer_frames(images: list[Dataset]) -> list[Dataset]:
    return [data for data in images if int(data.InstanceNumber) < FRAMES]


def turned(images: list[Dataset]) -> list[Dataset]:
    axes = OBLIQUE @ Rotation.from_euler("z", 2, degrees=True).as_matrix()
    for data in images:
        data.ImageOrientationPatient = [round(float(v), 10) for v in axes[:, :2].T.ravel()]
    return images


@pytest.mark.slow
@pytest.mark.parametrize("change", [same_matrix, fewer_frames, turned])
@pytest.mark.parametrize("one_series", [False, True])
@pytest.mark.parametrize("odd_slices", ["refuse", "leave-out"])
def test_the_whole_stack_twice_is_a_question(
    tmp_path, change: Callable[[list[Dataset]], list[Dataset]], one_series, odd_slices
) -> None:
    rest = take(one_series=one_series, at="101500")
    stress = change(take(series=40, delay=4, one_series=one_series, at="104500"))
    path = save([*rest, *stress], tmp_path, shuffle=2)
    error = refused(path, GeometryError, "two stacks of 4 slices", odd_slices=odd_slices)
    numbers = ("10", "40") if one_series else ("10 11 12 13", "40 41 42 43")
    assert all(f"--series {part}" in error.remedy for part in numbers)
    check_is(read_dicom(path, series=list(map(int, numbers[0].split()))), rest, 4)
    check_is(read_dicom(path, series=list(map(int, numbers[1].split()))), stress, 4)


def test_most_of_the_stack_twice_is_a_question_too(tmp_path) -> None:
    again = take((0, 10, 30), series=40, delay=4)
    refused(save([*take(), *again], tmp_path), GeometryError, "two stacks of 4 slices")


def test_stills_that_were_repeated(tmp_path) -> None:
    again = take((10,), series=50, frames=1, delay=9)
    found = read([*take(frames=1), *again], tmp_path / "one", "series 50 .* is used")
    np.testing.assert_array_equal(found.stack.data[0, 1], pixels(again[0]))
    all_again = take(series=50, frames=1, delay=9)
    path = save([*take(frames=1), *all_again], tmp_path / "all")
    refused(path, GeometryError, "two stacks of 4 slices")


@pytest.mark.parametrize("at", ["", "101500"])
def test_a_series_for_every_phase_is_one_take(tmp_path, at) -> None:
    images = take(at=at)
    for data in images:
        data.SeriesNumber = 20 + int(data.InstanceNumber)
        data.SeriesInstanceUID = f"1.2.826.0.1.{data.SeriesNumber}"
    check_is(read_dicom(save(images, tmp_path)), images, 4)


def test_numbers_of_acquisition_that_count_phases_are_no_takes(tmp_path) -> None:
    images = take()
    for number, data in enumerate(images):
        data.AcquisitionNumber = data.InstanceNumber
        data.AcquisitionDateTime = f"2024050610{number // FRAMES:02d}00.{number % FRAMES}"
    check_is(read_dicom(save(images, tmp_path)), images, 4)


@pytest.mark.parametrize("same_series", [True, False])
def test_enhanced_files_of_two_takes(tmp_path, same_series) -> None:
    again = take((10,), series=50, delay=3)
    if same_series:
        for data in again:
            data.SeriesInstanceUID, data.SeriesNumber = take()[FRAMES].SeriesInstanceUID, 11
    (tmp_path / "a").write_bytes(encoded(enhanced(take())))
    second = enhanced(again)
    second.InstanceNumber = 2
    (tmp_path / "b").write_bytes(encoded(second))
    with pytest.warns(CalidWarning, match="acquired 2 times"):
        found = read_dicom(tmp_path)
    assert found.stack.data.shape[:2] == (FRAMES, 4)
    np.testing.assert_array_equal(found.stack.data[2, 1], pixels(again[2]))


def test_an_older_take_is_no_hole_filler_for_a_newer_one(tmp_path) -> None:
    """The newest take lacks a frame, and so does the older one: neither is completed."""
    first, again = take(), take((10,), series=50, delay=2)
    images = [d for d in first if d is not first[FRAMES + 2]] + again[:-1]
    refused(save(images, tmp_path), GeometryError, r"series 50\) has 4 frames, not 5")
