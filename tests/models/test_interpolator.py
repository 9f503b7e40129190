"""What holds of both presets whatever their weights are."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from calid.models.interpolator import (
    DEFAULT,
    PAPER,
    InterpolatorConfig,
    LatentInterpolator,
    Neighbours,
    depth_for,
    midpoints,
    start,
)
from calid.models.motion import Frames

pytestmark = pytest.mark.usefixtures("inside")

CHANNELS = 3
SMALL = {"channels": CHANNELS, "widths": (8, 16), "denoiser": (16, 8), "embedding": 16}
PRESETS = [dataclasses.replace(preset, **SMALL) for preset in (DEFAULT, PAPER)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained(config: InterpolatorConfig) -> LatentInterpolator:
    """An interpolator in which nothing is zero any more."""
    torch.manual_seed(0)
    model = LatentInterpolator(config).eval().requires_grad_(False)
    for number, parameter in enumerate(model.parameters()):
        parameter += 0.1 * random(*parameter.shape, seed=number)
    return model


def neighbours(below: float = -4.0, above: float = 6.0, targets: int = 2) -> Neighbours:
    shape = (targets, 2, CHANNELS, 8, 8)
    distance = torch.tensor([[below, above, below - 10, 0.0]]).repeat(targets, 1)
    beyond = random(*shape, seed=3)
    beyond[:, 1] = 0
    return Neighbours(random(*shape, seed=1), distance, random(*shape, seed=2), beyond)


def test_before_training_the_mean_is_the_blend_of_the_registered_neighbours() -> None:
    seen = neighbours()
    mean = LatentInterpolator(PRESETS[0]).encode(seen).mean
    torch.testing.assert_close(mean, 0.6 * seen.moved[:, 0] + 0.4 * seen.moved[:, 1])


@pytest.mark.parametrize("near", [1e-2, 1e-4])
def test_every_answer_goes_to_the_acquired_slice(near: float) -> None:
    model, seen = trained(PRESETS[0]), neighbours(-near, 10.0)
    known, noise = model.encode(seen), random(2, CHANNELS, 8, 8)
    answers = (known.mean, model.transported(known, 3), model.sample(known, noise, 3))
    mean_error, _, sample_error = ((a - seen.moved[:, 0]).abs().max() for a in answers)
    assert max(mean_error, sample_error) < 50 * near
    begin = start(seen, known.mean, model.config.approach)
    assert (begin - seen.moved[:, 0]).abs().max() < 50 * near


def test_nothing_depends_on_what_is_not_there() -> None:
    seen = neighbours()
    assert seen.distance[0, 3] == 0
    model = trained(PRESETS[0])
    once = model.encode(seen).mean
    alone = dataclasses.replace(seen, beyond=0 * seen.beyond)
    assert not torch.equal(once, model.encode(alone).mean)
    moved = dataclasses.replace(seen, distance=seen.distance + torch.tensor([0, 0, 0, 9.0]))
    assert not torch.equal(once, model.encode(moved).mean), "it knows whether there is a next slice"


def test_targets_are_independent_of_each_other() -> None:
    model, noise = trained(PRESETS[0]), random(1, CHANNELS, 8, 8)
    both = neighbours()
    one = Neighbours(*(getattr(both, f.name)[:1] for f in dataclasses.fields(both)))
    both, one = model.encode(both), model.encode(one)
    torch.testing.assert_close(both.mean[:1], one.mean)
    pair = model.sample(both, noise.expand(2, -1, -1, -1), 2)
    torch.testing.assert_close(pair[:1], model.sample(one, noise, 2), rtol=1e-4, atol=1e-4)


def test_the_paper_sees_two_slices_and_nothing_else() -> None:
    model, seen, noise = trained(PRESETS[1]), neighbours(-5, 5), random(2, CHANNELS, 8, 8)
    once = model.sample(model.encode(seen), noise, 4)
    elsewhere = seen.distance * torch.tensor([1, 1, 3.0, 3.0])
    blind = Neighbours(seen.adjacent, elsewhere, 0 * seen.moved, 0 * seen.beyond)
    assert torch.equal(once, model.sample(model.encode(blind), noise, 4))
    turned = dataclasses.replace(seen, adjacent=seen.adjacent.flip(1))
    assert not torch.equal(once, model.sample(model.encode(turned), noise, 4))
    assert model.encode(seen).mean is None
    with pytest.raises(ValueError, match="no mean to start from"):
        model.transported(model.encode(seen), 4)


def test_tau_2_reaches_the_denoiser_at_every_level() -> None:
    model, seen = trained(PRESETS[1]), neighbours()
    noise, t = random(2, CHANNELS, 8, 8), torch.full((2,), 0.5)
    known = model.encode(seen)
    before = model.predict(noise, t, known)
    assert len(known.injected) == 2 * len(model.config.widths)
    for level, maps in enumerate(known.injected):
        injected = list(known.injected)
        injected[level] = maps + 1
        changed = dataclasses.replace(known, injected=injected)
        assert not torch.equal(model.predict(noise, t, changed), before), level


def test_the_transport_sees_its_state_and_the_time_alone() -> None:
    model, seen, mean = trained(PRESETS[0]), neighbours(), random(2, CHANNELS, 8, 8)
    known = dataclasses.replace(model.encode(seen), mean=mean)
    # Other neighbours with the same blend and gate start, and end, at the same latents.
    other = dataclasses.replace(seen, adjacent=seen.adjacent + 1, beyond=seen.beyond - 1)
    same = dataclasses.replace(model.encode(other), mean=mean)
    assert torch.equal(model.transported(known, 3), model.transported(same, 3))


def test_the_start_lies_on_the_way_from_the_mean_to_the_blend() -> None:
    config, seen, mean = PRESETS[0], neighbours(), random(2, CHANNELS, 8, 8)
    share = (start(seen, mean, config.approach) - mean) / (seen.blend - mean)
    torch.testing.assert_close(share, torch.full_like(share, config.approach), rtol=0, atol=1e-3)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_midpoints_of_midpoints_of_a_ramp_are_the_ramp(depth: int) -> None:
    ramp = 8 * torch.arange(4.0)[:, None, None, None]
    dense = midpoints(ramp, 10.0, depth, lambda low, high, half: (low + high) / 2)
    step = 8 / 2**depth
    torch.testing.assert_close(dense.flatten(), step * torch.arange(3 * 2**depth + 1.0))
    assert torch.equal(dense[:: 2**depth], ramp)


def test_generated_slices_become_context() -> None:
    seen: list[tuple[float, float, float]] = []

    def between(low: Tensor, high: Tensor, half: float) -> Tensor:
        seen.extend((a, b, half) for a, b in zip(low.flatten(), high.flatten(), strict=True))
        return high - 1

    midpoints(torch.tensor([0.0, 10.0])[:, None, None, None], 10.0, 2, between)
    assert seen == [(0, 10, 5), (0, 9, 2.5), (9, 10, 2.5)]


@pytest.mark.parametrize(("count", "depth"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4)])
def test_a_gap_is_halved_until_it_holds_enough(count: int, depth: int) -> None:
    assert depth_for(count) == depth


FILM = 6


def film_of(seen: Neighbours) -> Neighbours:
    """Every frame like the first, but for noise of its own."""
    once = [x.repeat(FILM, *[1] * (x.ndim - 1)) for x in vars(seen).values()]
    adjacent, distance, moved, beyond = once
    noise = [0.3 * random(*x.shape, seed=7 + i) for i, x in enumerate((adjacent, moved))]
    return Neighbours(adjacent + noise[0], distance, moved + noise[1], beyond)


def test_a_frame_is_answered_alone_bit_for_bit_and_as_in_a_film_that_stands_still() -> None:
    model, seen = trained(PRESETS[0]), neighbours()
    once = model.encode(seen)
    assert torch.equal(model.encode(seen, Frames(1)).mean, once.mean)
    still = [x.repeat(FILM, *[1] * (x.ndim - 1)) for x in vars(seen).values()]
    found = model.encode(Neighbours(*still), Frames(FILM)).mean.unflatten(0, (FILM, -1))
    torch.testing.assert_close(found, once.mean.expand_as(found), atol=0.03, rtol=0.03)


def test_frames_are_mixed_around_the_beat_and_not_beyond_the_ends_of_a_part_of_it() -> None:
    model, seen = trained(PRESETS[0]), film_of(neighbours())

    def mean(seen: Neighbours, frames: Frames) -> Tensor:
        return model.encode(seen, frames).mean.unflatten(0, (FILM, -1))

    def rolled(seen: Neighbours) -> Neighbours:
        return Neighbours(
            *(x.unflatten(0, (FILM, -1)).roll(1, 0).flatten(0, 1) for x in vars(seen).values())
        )

    whole, part = Frames(FILM), Frames(FILM, periodic=False)
    torch.testing.assert_close(mean(rolled(seen), whole), mean(seen, whole).roll(1, 0))
    assert not torch.allclose(mean(rolled(seen), part), mean(seen, part).roll(1, 0), atol=1e-2)
    alone = model.encode(seen).mean.unflatten(0, (FILM, -1))
    assert not torch.allclose(mean(seen, whole), alone, atol=1e-2)


def test_the_interval_between_frames_does_not_matter() -> None:
    """Twice as many frames of a beat that changes slowly: the same answer at the same phase."""
    model, seen = trained(PRESETS[0]), neighbours(targets=1)
    phase = torch.arange(24) / 24

    def mean(step: int) -> Tensor:
        swing = torch.cos(2 * torch.pi * phase[::step])[:, None, None, None, None]
        count = len(swing)
        still = [x.repeat(count, *[1] * (x.ndim - 1)) for x in vars(seen).values()]
        adjacent, distance, moved, beyond = still
        beating = Neighbours(adjacent * (1 + swing), distance, moved * (1 + swing), beyond)
        return model.encode(beating, Frames(count)).mean

    apart = (mean(1)[::2] - mean(2)).abs().max()
    alone = model.encode(seen).mean
    assert apart < 0.02 * alone.abs().max()


def test_a_preset_without_mixing_sees_frames_by_themselves() -> None:
    model, seen = trained(PRESETS[1]), film_of(neighbours())
    for one, other in zip(
        model.encode(seen).injected, model.encode(seen, Frames(FILM)).injected, strict=True
    ):
        assert torch.equal(one, other)


def test_part_of_what_is_encoded_is_what_is_encoded_of_a_part() -> None:
    model, seen, some = trained(PRESETS[0]), neighbours(targets=3), slice(1, 3)
    part, alone = model.encode(seen).part(some), model.encode(seen.part(some))
    noise = random(2, CHANNELS, 8, 8)
    torch.testing.assert_close(part.mean, alone.mean)
    torch.testing.assert_close(model.sample(part, noise, 2), model.sample(alone, noise, 2))
