"""A film is reconstructed as a whole, and its frames alike, whichever comes first."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from tiny_model import reconstructed, tiny_model

from calid.data.intensity import IntensityWindow
from calid.data.phantom import HeartPhantom
from calid.errors import CalidWarning
from calid.inference.model import FEWEST_FRAMES, Model
from calid.inference.options import Answer
from calid.inference.reconstruct import heartbeat
from calid.models.motion import Frames
from calid.stack import SliceStack, Volume

FRAMES = 6


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(precision="float32")


@pytest.fixture(scope="module")
def film() -> SliceStack:
    phases = tuple(np.arange(FRAMES) / FRAMES)
    found = HeartPhantom(2).acquire(slices=3, start=20.0, field_of_view=48.0, phases=phases)
    return replace(found, frame_times=np.array([0.01, 0.25, 0.52, 0.6, 0.7, 0.8]))


@pytest.fixture(scope="module")
def dense(model: Model, film: SliceStack) -> Volume:
    return reconstructed(model, film, factor=2)


def frames(film: SliceStack, first: int, last: int) -> SliceStack:
    times = film.frame_times[first:last]
    rank = 3 if last - first == 1 else 4
    return replace(film, data=film.data[first:last], frame_times=times, rank=rank)


def far(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_times_shape_and_place_of_a_film_are_exact(film: SliceStack, dense: Volume) -> None:
    np.testing.assert_array_equal(dense.frame_times, film.frame_times)
    assert dense.data.shape == (FRAMES, 2 * film.n_slices - 1, *film.shape[2:])
    assert dense.data.dtype == film.data.dtype
    assert dense.rank == 4
    expected = film.affine.copy()
    expected[:, 2] /= 2
    np.testing.assert_array_equal(dense.affine, expected)
    np.testing.assert_array_equal(dense.data[:, dense.acquired], film.data)


def test_rolled_frames_are_rolled_in_the_answer(
    model: Model, film: SliceStack, dense: Volume
) -> None:
    again = reconstructed(model, replace(film, data=np.roll(film.data, 2, axis=0)), factor=2)
    assert far(dense.data[0], dense.data[2]) > 20
    assert far(again.data, np.roll(dense.data, 2, axis=0)) <= 1  # of rounding


def test_frames_are_registered_together_unless_they_are_not_to(
    model: Model, film: SliceStack, dense: Volume
) -> None:
    apart = reconstructed(model, film, factor=2, frame_by_frame=True)
    assert (dense.frames_together, apart.frames_together) == (FRAMES, 1)
    assert far(dense.data, apart.data) > 5


def half(slices: int = 3) -> SliceStack:
    """From end-diastole to end-systole, in eight frames."""
    phases = tuple(0.4 * np.arange(8) / 8)
    return HeartPhantom(2).acquire(slices=slices, start=20.0, field_of_view=48.0, phases=phases)


def test_the_last_frame_of_a_part_of_a_beat_is_not_followed_by_the_first(
    model: Model, film: SliceStack, dense: Volume
) -> None:
    assert dense.provenance["settings"]["whole_heartbeat"] is True
    with pytest.warns(CalidWarning, match="not a whole heartbeat: its last frame is far"):
        part = reconstructed(model, half(), factor=2)
    assert part.provenance["settings"]["whole_heartbeat"] is False
    alone = reconstructed(model, half(), factor=2, frame_by_frame=True)
    assert alone.provenance["settings"]["whole_heartbeat"] is None


@pytest.mark.parametrize("periodic", [True, False])
def test_the_last_frame_matters_to_the_first_around_the_beat_alone(
    model: Model, periodic: bool
) -> None:
    film = np.random.default_rng(0).random((8, 3, 32, 32), np.float32)
    other = film.copy()
    other[-1] += 0.1
    given = np.arange(3) * 10.0, np.array([4.0, 15.0]), (1.5, 1.5), Answer(dial=0)
    one, two = (
        np.concatenate([x for _, x in model.film(f, *given, frames=Frames(8, periodic))], 2)[0]
        for f in (film, other)
    )
    change = np.abs(two - one).mean((1, 2, 3))
    assert bool(change[0] > 0.5 * change[-2]) is periodic
    assert change[3] < 0.3 * change[-2]


@pytest.mark.parametrize(("cycle", "whole"), [(0.8, True), (1.0, True), (1.3, False)])
def test_the_time_between_r_waves_decides_where_it_is_known(cycle: float, whole: bool) -> None:
    stack = replace(half(), frame_times=np.arange(8) / 8, cycle=cycle)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert heartbeat(stack) == Frames(8, periodic=whole)
    assert [str(w.message).count(f"1 s of {cycle:.2g} s") for w in said] == [1] * (not whole)


@pytest.mark.parametrize("count", [1, FEWEST_FRAMES - 1])
def test_few_frames_stand_alone(
    model: Model, film: SliceStack, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = IntensityWindow.of(film.data)
    monkeypatch.setattr(IntensityWindow, "of", lambda data, intensity=None: window)
    apart = reconstructed(model, film, factor=2, frame_by_frame=True)
    short = frames(film, 0, count)
    found = reconstructed(model, short, factor=2)
    assert found.frames_together == 1
    # Stored values are kept within the range of what is given: that of few frames is narrower.
    expected = apart.data[:count].clip(short.data.min(), short.data.max())
    assert far(found.data, expected) <= 1


def test_one_frame_of_a_film_is_that_frame_bit_for_bit(model: Model) -> None:
    images = np.random.default_rng(0).random((1, 4, 32, 32), np.float32)
    given = np.arange(4) * 10.0, np.array([3.0, 12.0, 17.0]), (1.5, 1.5)
    for answer in (Answer(), Answer(samples=2, steps=2)):
        parts = [drawn[:, 0] for _, drawn in model.film(images, *given, answer)]
        expected = model.between(images[0], *given, answer)
        np.testing.assert_array_equal(np.concatenate(parts, 1), expected)


@pytest.mark.parametrize("at_once", [1, 4, 40])
def test_targets_in_parts_are_the_same(model: Model, at_once: int) -> None:
    film = np.random.default_rng(0).random((5, 3, 32, 32), np.float32)
    given = np.arange(3) * 10.0, np.array([3.0, 5.0, 8.0, 14.0]), (1.5, 1.5), Answer(dial=1)
    parts = list(model.film(film, *given, at_once))
    assert [i for some, _ in parts for i in range(4)[some]] == [0, 1, 2, 3]
    found = np.concatenate([drawn for _, drawn in parts], 2)
    assert found.shape == (1, 5, 4, 32, 32)
    whole = np.concatenate([drawn for _, drawn in model.film(film, *given, 16)], 2)
    np.testing.assert_allclose(found, whole, atol=1e-4)


def test_progress_counts_frames_and_ends_with_all(model: Model, film: SliceStack) -> None:
    seen: list[int] = []
    reconstructed(model, film, factor=3, on_frame=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == FRAMES


def test_uncertainty_of_a_film_is_zero_on_what_is_known(model: Model, film: SliceStack) -> None:
    found = reconstructed(model, film, factor=2, samples=2, steps=1, uncertainty=True)
    assert found.uncertainty is not None
    assert not found.uncertainty[:, found.acquired].any()
    assert (found.uncertainty[:, ~found.acquired].mean((1, 2, 3)) > 0).all()
