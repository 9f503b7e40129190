from __future__ import annotations

import numpy as np
import pytest
import torch

from calid.data.bank import LEVELS, Film
from calid.data.sampling import StackSampler, TrainingStack, centre_stack, seeded


def film(name: str, slices: int, height: int, width: int, frames: int = 2) -> Film:
    """Random codes at unequal gaps, no two alike."""
    rng = np.random.default_rng((slices, height, width))
    codes = rng.integers(0, 200, (frames, slices, height, width)).astype(np.uint8)
    return Film(name, codes, 10.0 * np.arange(slices) + np.arange(slices) ** 2 / 10)


def same(one: list[TrainingStack], other: list[TrainingStack]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and np.array_equal(a.positions, b.positions)
        for a, b in zip(one, other, strict=True)
    )


LARGE = [film("a", 5, 48, 40), film("b", 7, 40, 44)]
SMALL = [film("c", 4, 24, 30), film("d", 4, 33, 20)]


def test_a_draw_is_a_pure_function_of_seed_step_and_rank() -> None:
    used = StackSampler(LARGE, 32, seed=1)
    for step in range(3):
        used.draw(step, 0, 2)
    assert same(used.draw(7, 2, 3), StackSampler(LARGE, 32, seed=1).draw(7, 2, 3))


def test_steps_ranks_and_seeds_differ() -> None:
    sampler = StackSampler(LARGE, 32, seed=1)
    base = sampler.draw(3, 0, 2)
    assert not same(base, sampler.draw(4, 0, 2))
    assert not same(base, sampler.draw(3, 1, 2))
    assert not same(base, StackSampler(LARGE, 32, seed=2).draw(3, 0, 2))


def test_seeds_depend_on_every_key_and_its_place() -> None:
    keys = [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 1, 0), (0, 0, 2)]
    streams = [tuple(torch.rand(2, generator=seeded(*k)).tolist()) for k in keys]
    assert len(set(streams)) == len(keys)
    assert streams[0] == tuple(torch.rand(2, generator=seeded(0, 0, 1)).tolist())


def test_stacks_have_the_asked_size_and_are_in_window_units() -> None:
    stacks = StackSampler(LARGE, 32, seed=0).draw(0, 0, 8)
    assert len(stacks) == 8
    for stack in stacks:
        assert stack.images.shape == (len(stack.positions), 32, 32)
        assert 0 <= float(stack.images.min()) <= float(stack.images.max()) <= 1.5
    assert {len(s.positions) for s in stacks} == {5, 7}, "both films are used"


def test_positions_stay_true_to_the_film_when_the_stack_is_turned_over() -> None:
    gaps = np.diff(LARGE[0].positions)
    seen = set()
    for step in range(12):
        stack = StackSampler(LARGE[:1], 32, seed=0).draw(step, 0, 1)[0]
        steps = np.diff(stack.positions)
        turned = not np.allclose(steps, gaps)
        np.testing.assert_allclose(steps, gaps[::-1] if turned else gaps)
        seen.add(turned)
    assert seen == {False, True}


def test_images_are_turned_over_with_their_positions() -> None:
    codes = np.zeros((1, 4, 32, 32), np.uint8) + np.array([20, 60, 100, 140])[:, None, None]
    sampler = StackSampler([Film("s", codes.astype(np.uint8), np.array([0.0, 8, 18, 30]))], 32, 0)
    for step in range(12):
        stack = sampler.draw(step, 0, 1)[0]
        rising = bool(stack.images[0].mean() < stack.images[-1].mean())
        assert np.diff(stack.positions)[0] == (8 if rising else 12)


def test_long_stacks_give_runs_of_neighbours() -> None:
    long = Film("l", LARGE[0].frames[:, [0] * 20], np.arange(20.0) ** 2)
    sampler = StackSampler([long], 32, seed=0, most_slices=6)
    starts = set()
    for step in range(15):
        stack = sampler.draw(step, 0, 1)[0]
        assert len(stack.images) == len(stack.positions) == 6
        gaps = np.diff(stack.positions)  # 2k + 1 names the gap between slices k and k + 1
        assert set(np.abs(np.diff(gaps))) == {2.0}
        starts.add(float(gaps.min()))
    assert len(starts) > 4


def test_short_stacks_are_given_whole() -> None:
    stack = StackSampler(LARGE[:1], 32, seed=0, most_slices=5).draw(0, 0, 1)[0]
    assert len(stack.positions) == 5


def test_small_films_make_batches_of_their_own() -> None:
    sampler = StackSampler(LARGE + SMALL, 32, seed=0, small_share=0.5)
    assert [f.subject for f in sampler.small] == ["c", "d"]
    kinds = []
    for step in range(40):
        sizes = {s.images.shape[-1] for s in sampler.draw(step, 0, 3)}
        kinds.append(sizes.pop())
        assert not sizes, "one size a batch"
        other_rank = sampler.draw(step, 1, 3)[0].images.shape[-1]
        assert other_rank == kinds[-1], "all ranks take the same kind"
    assert set(kinds) == {16, 32}
    assert 10 < kinds.count(16) < 30


@pytest.mark.parametrize("films", [LARGE, SMALL])
def test_one_kind_alone_fills_every_step(films: list[Film]) -> None:
    sampler = StackSampler(films, 32, seed=0)
    slices = {len(s.positions) for step in range(6) for s in sampler.draw(step, 0, 2)}
    assert slices == {len(f.positions) for f in films}


def test_small_crops_are_the_largest_multiple_of_sixteen_that_fits() -> None:
    sampler = StackSampler([film("e", 3, 52, 60)], 128, seed=0)
    assert sampler.draw(0, 0, 1)[0].images.shape[-2:] == (48, 48)


def test_every_frame_is_drawn() -> None:
    codes = np.stack([np.full((3, 32, 32), c, np.uint8) for c in (30, 150)])
    sampler = StackSampler([Film("f", codes, np.arange(3.0))], 32, seed=0)
    levels = [float(sampler.draw(step, 0, 1)[0].images.mean()) for step in range(16)]
    assert 2 < sum(level > 0.5 for level in levels) < 14


def test_the_validation_crop_is_the_film_as_it_is() -> None:
    stack = centre_stack(LARGE[0], 1, 32)
    expected = torch.from_numpy(LARGE[0].frames[1, :, 8:40, 4:36]).float() / LEVELS
    torch.testing.assert_close(stack.images, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(stack.positions, LARGE[0].positions)
