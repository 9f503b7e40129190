from __future__ import annotations

import numpy as np
import pytest
import torch

from calid.data.bank import LEVELS, Film
from calid.data.film_sampling import LEAST, FilmSampler, centre_film

SIZE = 32


def film(frames: int = 12, slices: int = 5, side: int = 40) -> Film:
    """Every image has one value of its own: frame + frames * slice."""
    value = np.arange(frames)[:, None] + frames * np.arange(slices)
    images = np.broadcast_to(value[..., None, None], (frames, slices, side, side))
    return Film("a", images.astype(np.uint8), 8.0 * np.arange(slices))


def drawn(sampler: FilmSampler, steps: int = 60):
    return [sampler.draw(step, 0) for step in range(steps)]


def order(images: torch.Tensor) -> list[int]:
    """Frames of a drawn film in the order of their brightness in a slice, darkest first."""
    return images[:, 0].mean((1, 2)).argsort().tolist()


def test_draws_are_a_pure_function_of_seed_step_and_rank():
    one, other = (FilmSampler([film()], SIZE, 12, seed=3) for _ in range(2))
    one.draw(0, 0)
    torch.testing.assert_close(one.draw(7, 1).images, other.draw(7, 1).images, rtol=0, atol=0)
    for step, rank in ((8, 1), (7, 0)):
        assert not torch.equal(one.draw(7, 1).images.mean(), one.draw(step, rank).images.mean())


def test_frames_are_consecutive_in_their_cycle_and_time_goes_on(monkeypatch):
    monkeypatch.setattr("calid.data.film_sampling.augment_intensity", lambda x, generator: x)
    seen = set()
    for found in drawn(FilmSampler([film()], SIZE, 12, seed=0)):
        values = (found.images[:, 0, 0, 0] * LEVELS).round().int().tolist()
        stride = 12 // found.cycle
        assert stride in (1, 2)
        assert len(values) <= found.cycle
        steps = np.diff([value % 12 for value in values]) % 12
        np.testing.assert_array_equal(steps, stride)
        seen.add((stride, len(values) == found.cycle))
    assert seen >= {(1, True), (1, False), (2, True)}


def test_a_long_film_gives_at_most_so_many_frames_and_says_of_how_many():
    for found in drawn(FilmSampler([film(frames=25)], SIZE, 10, seed=0), 20):
        assert found.cycle == 25
        assert LEAST <= len(found.images) <= 10


def test_all_frames_have_one_pose_and_one_contrast():
    ramp = np.broadcast_to(np.arange(40) * 4, (8, 3, 40, 40)).astype(np.uint8)
    sampler = FilmSampler([Film("a", ramp, np.arange(3) * 8.0)], SIZE, 8, seed=0)
    for found in drawn(sampler, 8):
        # Noise alone tells frames apart.
        assert float((found.images - found.images[:1]).abs().mean()) < 0.03
    poses = [found.images[0, 0] for found in drawn(sampler, 8)]
    assert min(float((a - poses[0]).abs().mean()) for a in poses[1:]) > 0.03


@pytest.mark.parametrize(("side", "size"), [(40, 32), (31, 16), (100, 32)])
def test_small_films_give_smaller_crops(side, size):
    found = FilmSampler([film(side=side)], SIZE, 12, seed=0).draw(0, 0)
    assert found.images.shape[-2:] == (size, size)
    assert centre_film(film(side=side), SIZE).images.shape == (12, 5, size, size)


def test_long_stacks_give_a_run_of_slices_either_way_up():
    sampler = FilmSampler([film(slices=12)], SIZE, 12, seed=0, most_slices=4)
    for found in drawn(sampler, 10):
        assert found.images.shape[1] == 4
        np.testing.assert_allclose(np.diff(found.positions), 8)


def test_the_centre_of_a_film_is_as_it_is():
    found = centre_film(film(), SIZE)
    assert found.cycle == 12
    values = (found.images[..., 0, 0] * LEVELS).round()
    np.testing.assert_array_equal(values, film().frames[..., 0, 0])
