"""Whole reconstructions of films with weights that mix over frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from calid.data.phantom import HeartPhantom
from calid.errors import ResourceError
from calid.inference import model as inference
from calid.inference.load import load_model
from calid.inference.memory import AT_ONCE, Demand, fit_memory
from calid.inference.model import Model, Sampling
from calid.inference.windows import FEWEST_FRAMES
from calid.models.interpolator import Interpolator, with_temporal_layers
from calid.models.layers import channels_last
from calid.models.temporal import TemporalAttention
from calid.stack import SliceStack

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
FRAMES = 6


@pytest.fixture(scope="module")
def single() -> Model:
    """The released weights without temporal layers."""
    released = load_model(device="cpu", precision="float32")
    assert isinstance(released.interpolator, Interpolator)
    network = Interpolator(replace(released.interpolator.config, temporal=0))
    known = released.interpolator.state_dict()
    network.load_state_dict({name: known[name] for name in network.state_dict()})
    network = channels_last(network.eval().requires_grad_(False))
    return Model(released.autoencoder, network, "default", CPU, runtime=released.runtime)


@pytest.fixture(scope="module")
def model(single) -> Model:
    """The released weights with temporal layers that do something."""
    assert isinstance(single.interpolator, Interpolator)
    film = with_temporal_layers(single.interpolator, heads=2).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for module in film.modules():
        if isinstance(module, TemporalAttention):
            shape = module.exit.weight.shape
            module.exit.weight += 1.0 * torch.randn(shape, generator=generator)
    network = channels_last(film)
    return Model(single.autoencoder, network, "default", CPU, runtime=single.runtime)


def heart(frames: int, slices: int = 3) -> SliceStack:
    phases = tuple(np.arange(frames) / frames)
    return HeartPhantom(2).acquire(
        slices=slices, start=20.0, field_of_view=48.0, thickness=0.0, phases=phases
    )


@pytest.fixture(scope="module")
def film() -> SliceStack:
    return heart(FRAMES)


def far(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("samples", [0, 1])
def test_frames_know_of_each_other_unless_they_are_not_to(model, single, film, samples):
    asked = {"factor": 2, "samples": samples, "steps": 1}
    found = model.reconstruct(film, **asked)
    apart = model.reconstruct(film, **asked, frame_by_frame=True)
    assert (found.frames_together, apart.frames_together) == (FRAMES, 1)
    assert far(found.data, apart.data) > 5
    expected = single.reconstruct(film, **asked)
    np.testing.assert_array_equal(apart.data, expected.data)
    assert expected.frames_together == 1
    np.testing.assert_array_equal(found.data[:, found.acquired], film.data)
    np.testing.assert_array_equal(found.frame_times, film.frame_times)
    np.testing.assert_array_equal(found.affine, expected.affine)
    np.testing.assert_array_equal(found.positions, expected.positions)
    assert found.data.dtype == film.data.dtype


def test_rolled_frames_are_rolled_in_the_answer(model, film):
    found = model.reconstruct(film, factor=2)
    again = model.reconstruct(replace(film, data=np.roll(film.data, 2, axis=0)), factor=2)
    assert far(found.data[0], found.data[2]) > 20
    assert far(again.data, np.roll(found.data, 2, axis=0)) <= 1  # of rounding


def test_few_frames_stand_alone(model, single, film):
    for count in (1, FEWEST_FRAMES - 1):
        short = replace(
            film, data=film.data[:count], frame_times=film.frame_times[:count], rank=3 + (count > 1)
        )
        found = model.reconstruct(short, factor=2)
        assert found.frames_together == 1
        np.testing.assert_array_equal(found.data, single.reconstruct(short, factor=2).data)


def test_one_frame_of_a_film_is_that_frame_bit_for_bit(model, film):
    images = np.random.default_rng(0).random((1, 4, 32, 32), np.float32)
    given = np.arange(4) * 10.0, np.array([3.0, 12.0, 17.0]), (1.5, 1.5), Sampling(2, 2)
    parts = dict.fromkeys(range(3))
    for some, drawn in model.film(images, *given):
        for place in range(some.start, some.stop):
            parts[place] = drawn[:, 0, place - some.start]
    expected = model.between(images[0], *given)
    np.testing.assert_array_equal(np.stack(list(parts.values()), 1), expected)


def test_new_layers_change_no_heart_that_stands_still(single, film):
    still = replace(film, data=np.repeat(film.data[:1], FRAMES, axis=0))
    fresh = with_temporal_layers(single.interpolator)
    untrained = Model(single.autoencoder, fresh, "default", CPU, runtime=single.runtime)
    found = untrained.reconstruct(still, factor=2)
    assert found.frames_together == FRAMES
    assert far(found.data, single.reconstruct(still, factor=2).data) <= 1


def test_windows_of_a_long_film_agree_with_the_whole(model, monkeypatch):
    film = heart(12, slices=2)
    whole = model.reconstruct(film, factor=2)
    monkeypatch.setattr(inference, "TOGETHER", 9)
    parts = model.reconstruct(film, factor=2)
    apart = model.reconstruct(film, factor=2, frame_by_frame=True)
    assert (whole.frames_together, parts.frames_together) == (12, 9)
    error, effect = (
        np.abs(whole.data.astype(float) - other.data).mean() for other in (parts, apart)
    )
    assert 0 < error < 0.25 * effect


def test_progress_counts_frames_and_ends_with_all(model, film):
    seen: list[int] = []
    model.reconstruct(film, factor=3, on_frame=seen.append)
    assert seen == [3, 6]


def test_uncertainty_of_a_film_is_zero_on_what_is_known(model, film):
    found = model.reconstruct(film, factor=2, samples=2, steps=1, uncertainty=True)
    assert found.uncertainty is not None
    assert not found.uncertainty[:, found.acquired].any()
    assert (found.uncertainty[:, ~found.acquired].mean((1, 2, 3)) > 0).all()


def test_targets_in_parts_are_the_same(model):
    film = np.random.default_rng(0).random((5, 3, 32, 32), np.float32)
    given = np.arange(3) * 10.0, np.array([3.0, 5.0, 8.0]), (1.5, 1.5), Sampling(1, 1)
    many, few = (next(model.film(film, *given, at_once))[1] for at_once in (40, 1))
    assert many.shape == (1, 5, 3, 32, 32)
    np.testing.assert_allclose(many, few, atol=1e-4)


def test_a_film_together_takes_more_memory_and_short_memory_fewer_frames(film):
    long = replace(film, data=np.tile(film.data, (5, 1, 1, 1)), frame_times=np.arange(30) / 30)
    alone, together = (Demand.of(long, 4, 0, together=n) for n in (1, 30))
    assert together.arrays > 3 * alone.arrays
    assert together.networks(AT_ONCE) > 3 * alone.networks(AT_ONCE)
    enough = together.total(1) / 1e9
    assert fit_memory(together, 2 * enough, CPU) == (together, AT_ONCE)
    less, at_once = fit_memory(together, 0.999 * enough, CPU)
    assert (less.together, at_once) == (15, AT_ONCE)
    with pytest.raises(ResourceError, match="--frame-by-frame"):
        fit_memory(together, replace(together, together=8).total(1) / 1e9 * 0.999, CPU)
    assert fit_memory(alone, None, CPU)[0] == alone


def test_values_that_are_no_numbers_are_refused(model, film, monkeypatch):
    from calid.errors import WeightsError

    monkeypatch.setattr(Model, "_fill", lambda *given: torch.full((FRAMES, 1, 32, 32), torch.nan))
    with pytest.raises(WeightsError, match="the film"):
        model.reconstruct(film, factor=2)
