"""Frames of a film are reconstructed alike, whichever comes first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calid.data.intensity import IntensityWindow
from calid.data.phantom import HeartPhantom
from calid.inference.load import load_model
from calid.inference.model import Model
from calid.stack import SliceStack, Volume

FACTOR = 2


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def film() -> SliceStack:
    found = HeartPhantom(2).acquire(
        slices=3, start=20.0, field_of_view=48.0, phases=(0.0, 0.3, 0.6)
    )
    return replace(found, frame_times=np.array([0.01, 0.25, 0.52]))


@pytest.fixture(scope="module")
def dense(model, film) -> Volume:
    return model.reconstruct(film, factor=FACTOR)


@pytest.mark.slow
def test_frames_rolled_in_are_frames_rolled_out(model, film, dense):
    rolled = model.reconstruct(replace(film, data=np.roll(film.data, 1, axis=0)), factor=FACTOR)
    assert not np.array_equal(dense.data[0], dense.data[1])
    np.testing.assert_array_equal(rolled.data, np.roll(dense.data, 1, axis=0))


@pytest.mark.slow
def test_a_frame_alone_is_that_of_the_film_in_the_same_window(model, film, dense, monkeypatch):
    window = IntensityWindow.of(film.data)
    assert window != IntensityWindow.of(film.data[1:2])
    monkeypatch.setattr(IntensityWindow, "of", lambda data, intensity=None: window)
    alone = replace(film, data=film.data[1:2], frame_times=film.frame_times[1:2], rank=3)
    found = model.reconstruct(alone, factor=FACTOR).data[0].astype(int)
    # Stored values are kept within the range of what is given: that of a frame is narrower.
    expected = dense.data[1].astype(int).clip(alone.data.min(), alone.data.max())
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_times_shape_and_place_of_a_film_are_exact(film, dense):
    np.testing.assert_array_equal(dense.frame_times, film.frame_times)
    assert dense.data.shape == (3, (film.n_slices - 1) * FACTOR + 1, 32, 32)
    assert dense.rank == 4
    expected = film.affine.copy()
    expected[:, 2] /= FACTOR
    np.testing.assert_array_equal(dense.affine, expected)
    np.testing.assert_array_equal(dense.data[:, dense.acquired], film.data)
