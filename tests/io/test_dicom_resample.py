"""Slices with another number of frames than most are resampled to the others' cardiac phases."""

from __future__ import annotations

import numpy as np
import pytest
from faults.dicom_checks import refused, warned
from faults.dicom_writer import encoded, enhanced, image, pixels, save
from pydicom import Dataset

from calid.errors import CalidWarning, GeometryError
from calid.io.dicom import read_dicom

FRAMES = 10
HEIGHTS = (0, 10, 20, 30)


def brightness(phase):
    """Linear but for phases 0 and 0.5, periodic: linear interpolation between 8 frames is exact."""
    return 100 + 1600 * np.abs((np.asarray(phase) + 0.5) % 1 - 0.5)


def film(
    height: float, frames: int = FRAMES, interval: float = 800.0, said: bool = True
) -> list[Dataset]:
    """A slice whose frames cover a heartbeat of ``interval`` ms; ``said`` tells its length."""
    images = []
    for number in range(frames):
        data = image(
            height, number, step=interval / frames, series=10 + int(height), number=number + 1
        )
        data.NominalInterval = interval
        if not said:
            del data.NominalInterval
        bright = np.full((12, 10), np.rint(brightness(number / frames)), np.uint16)
        data.PixelData = bright.tobytes()
        images.append(data)
    return images


def exam(odd: list[Dataset], at: float = 20) -> list[Dataset]:
    """Slices of `FRAMES` frames, but for one."""
    return [data for z in HEIGHTS for data in (odd if z == at else film(z))]


@pytest.mark.parametrize("said", [True, False], ids=["R-R interval", "trigger times alone"])
@pytest.mark.parametrize("interval", [800.0, 960.0])
@pytest.mark.parametrize("place", HEIGHTS)
def test_other_frames_come_to_the_phases_of_most_slices(tmp_path, place, interval, said):
    odd = film(place, 8, interval, said)
    found = warned(
        save(exam(odd, place), tmp_path, shuffle=1),
        rf"the slice at {place}\.0 mm \(series {10 + place}\) has 8 frames; resampled in cardiac "
        r"phase to 10, .*not kept bit for bit",
    )
    stack, number = found.stack, HEIGHTS.index(place)
    wanted = np.rint(brightness(np.arange(FRAMES) / FRAMES))
    assert stack.data.dtype == np.uint16
    assert stack.shape == (FRAMES, 4, 12, 10)
    np.testing.assert_array_equal(
        stack.data, np.broadcast_to(wanted[:, None, None, None], stack.shape)
    )
    np.testing.assert_allclose(stack.frame_times, 0.08 * np.arange(FRAMES))
    assert stack.resampled == {number: 8}
    assert [kept.frames for kept in found.report.kept][number] == 8
    assert not found.report.left_out
    # The headers are of the nearest own frames.
    nearest = [0, 1, 2, 2, 3, 4, 5, 6, 6, 7]
    shown = [frame[number].SOPInstanceUID for frame in found.headers]
    assert shown == [odd[n].SOPInstanceUID for n in nearest]


def test_other_slices_are_kept_bit_for_bit(tmp_path):
    images = exam(film(20, 12))
    for number, data in enumerate(images):
        grey = np.random.default_rng(number).integers(1, 900, (12, 10)).astype(np.uint16)
        data.PixelData = grey.tobytes()
    stack = warned(save(images, tmp_path), "resampled").stack
    for number in range(2 * FRAMES):
        slice_, frame = divmod(number, FRAMES)
        np.testing.assert_array_equal(stack.data[frame, slice_], pixels(images[number]))
    # The first frames are of one phase.
    np.testing.assert_array_equal(stack.data[0, 2], pixels(images[2 * FRAMES]))


def test_slices_of_several_numbers_are_said_at_once(tmp_path):
    images = [*film(0, 8), *film(10), *film(20, 12), *film(30), *film(40)]
    path = save(images, tmp_path)
    with pytest.warns(CalidWarning) as caught:
        found = read_dicom(path)
    (said,) = [str(w.message) for w in caught if "resampled" in str(w.message)]
    assert "slice at 0.0 mm (series 10) has 8 frames, the slice at 20.0 mm (series 30)" in said
    assert found.stack.resampled == {0: 8, 2: 12}


def test_enhanced_files_of_other_numbers_of_frames(tmp_path):
    for place in HEIGHTS:
        data = enhanced(film(place, 8 if place == 10 else FRAMES))
        (tmp_path / f"{place}.dcm").write_bytes(encoded(data))
    found = warned(tmp_path, "has 8 frames; resampled")
    assert found.stack.resampled == {1: 8}
    np.testing.assert_array_equal(found.stack.data[:, 1], found.stack.data[:, 0])


def test_scales_of_slices_are_applied_before(tmp_path):
    odd = film(20, 8)
    for data in odd:
        data.RescaleSlope, data.RescaleIntercept = 2, 5
    stack = warned(save(exam(odd), tmp_path), "resampled").stack
    assert stack.data.dtype == np.float32
    wanted = 5 + 2 * brightness(np.arange(FRAMES) / FRAMES)
    np.testing.assert_allclose(stack.data[:, 2, 0, 0], wanted, rtol=1e-6)


def without_times(images: list[Dataset]) -> list[Dataset]:
    for number, data in enumerate(images):
        del data.TriggerTime
        data.TemporalPositionIdentifier = number + 1
    return images


def hole(images: list[Dataset]) -> list[Dataset]:
    return images[:4] + images[5:]


def cut_short(images: list[Dataset]) -> list[Dataset]:
    return images[:-2]


def two_phases(images: list[Dataset]) -> list[Dataset]:
    return images[::5]


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize(
    ("damage", "left"),
    [(hole, 9), (cut_short, 8), (two_phases, 2)],
    ids=["hole", "cut short", "two phases"],
)
def test_a_film_with_missing_frames_stays_an_error(tmp_path, damage, left, said):
    path = save(exam(damage(film(20, said=said))), tmp_path)
    error = refused(path, GeometryError, rf"series 30\) has {left} frames, not 10")
    assert "--odd-slices leave-out" in error.remedy


@pytest.mark.parametrize("all_slices", [True, False])
def test_without_trigger_times_it_stays_an_error(tmp_path, all_slices):
    odd = film(20, 8)
    images = exam(odd)
    for slice_ in (images[:FRAMES], images[FRAMES : 2 * FRAMES], images[-FRAMES:]) * all_slices:
        without_times(slice_)
    without_times(odd)
    refused(save(images, tmp_path), GeometryError, r"series 30\) has 8 frames, not 10")
