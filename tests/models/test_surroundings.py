from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from calid.evaluation.metrics import sharpness
from calid.models.context import Acquired, nearest_context, register
from calid.models.filters import gaussian_means
from calid.models.motion import GAP_UNIT, refined_motion, warp
from calid.models.surroundings import (
    CRISP,
    DRAWN,
    NOISE,
    Surroundings,
    expected,
    grain,
    rendered,
    sampled,
    surroundings,
    texture,
)

SIDE = 40


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def around(gate: float = 1.0, to_below: float = -5.0, to_above: float = 5.0) -> Surroundings:
    return Surroundings(
        moved=images(1, 2, seed=2),
        distance=torch.tensor([[to_below, to_above]]),
        gate=torch.full((1, 1, 1, 1), gate),
    )


def faint(seen: Surroundings) -> Surroundings:
    """The neighbours' grain alone, which is no difference to speak of."""
    return dataclasses.replace(seen, moved=0.2 * seen.moved)


def agreeing(gate: float = 1.0) -> Surroundings:
    """Both neighbours show the same."""
    seen = around(gate)
    return dataclasses.replace(seen, moved=seen.moved[:, :1].expand(-1, 2, -1, -1))


def test_the_mean_fades_into_registered_pixels_towards_acquired_slices() -> None:
    decoded = images(1, 1)
    for gate in (0.0, 0.25, 1.0):
        seen = around(gate, to_below=-2.0, to_above=6.0)
        registered = 0.75 * seen.moved[:, :1] + 0.25 * seen.moved[:, 1:]
        wanted = gate**2 * decoded + (1 - gate**2) * registered
        torch.testing.assert_close(expected(decoded, seen), wanted, rtol=0, atol=1e-6)


def test_nothing_is_added_on_an_acquired_slice() -> None:
    assert not texture(images(1, 1), around(gate=0.0)).any()
    assert texture(images(1, 1), around(gate=0.5)).any()


def test_a_mean_that_has_the_detail_of_its_neighbours_is_given_little_more() -> None:
    seen = agreeing()
    mean = seen.moved[:, :1]
    detail = mean - gaussian_means(mean, 1.5)
    ratio = (texture(mean, seen) / detail)[detail.abs() > 0.05]
    # All that both agree on, as far as there is room for it.
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1.25 - 0.9), rtol=0, atol=0.01)
    assert 1e-3 * float(detail.square().mean()) > NOISE


def test_more_detail_is_handed_on_where_blending_took_some_away() -> None:
    seen = faint(around())
    mean = gaussian_means(seen.blended, 4.0)
    answer = mean + texture(mean, seen)
    without = mean + 0.9 * (seen.blended - mean)
    one = seen.moved[:, 0]
    plain, crisp = (float(sharpness(x[:, 0], one)) for x in (without, answer))
    assert plain < crisp < 1.1**2


def test_detail_on_which_the_neighbours_disagree_stays_out() -> None:
    seen = agreeing()
    fog = gaussian_means(seen.moved[:, :1], 4.0)
    negative = 2 * fog - seen.moved[:, 1:]
    against = dataclasses.replace(seen, moved=torch.cat([seen.moved[:, :1], negative], 1))
    crisp = (fog + texture(fog, seen))[:, 0]
    foggy = (fog + texture(fog, against))[:, 0]
    truth = seen.moved[:, 0]
    assert float(sharpness(crisp, truth)) > 0.5
    assert float(sharpness(foggy, truth)) < 0.05


def test_the_nearer_neighbour_counts_more() -> None:
    seen = faint(around(to_below=-1.0, to_above=9.0))
    mean = 0.2 * images(1, 1)
    only_blend = texture(mean, dataclasses.replace(seen, moved=gaussian_means(seen.moved, 8.0)))
    low = gaussian_means(seen.moved, 8.0)
    wanted = 0.9 * (0.9 * low[:, :1] + 0.1 * low[:, 1:] - mean)
    torch.testing.assert_close(only_blend, wanted, rtol=0, atol=0.004)


def test_neighbours_that_differ_are_believed_less() -> None:
    seen, flat = around(), torch.full((1, 1, SIDE, SIDE), 0.5)
    mean = flat - 0.1
    shares = []
    for apart in (0.0, 0.3, 0.9):
        moved = torch.cat([flat - apart / 2, flat + apart / 2], 1)
        added = texture(mean, dataclasses.replace(seen, moved=moved))
        shares.append(float((added / (flat - mean)).mean()))
    assert shares == pytest.approx([0.9, 0.45, 0.09], abs=1e-4)


def test_a_sample_is_crisp_where_the_neighbours_disagree_too() -> None:
    seen = around()
    fog = gaussian_means(seen.blended, 4.0)
    one = seen.moved[:, 0]
    sample, default = sampled(fog, fog, seen, 1.0)[:, 0], rendered(fog, seen, 1.0)[:, 0]
    assert float(sharpness(default, one)) < 0.8
    assert float(sharpness(sample, one)) == pytest.approx(CRISP**2, abs=0.1)


@pytest.mark.parametrize("gate", [0.3, 0.6, 1.0])
def test_grain_fills_up_what_the_mean_has_of_the_detail(gate: float) -> None:
    seen = agreeing(gate)
    image = seen.moved[:, :1]
    fog = gaussian_means(image, 8.0)
    whole, part = (x - gaussian_means(x, 1.5) for x in (image, sampled(fog, fog, seen, 1.0)))
    ratio = (part / whole)[whole.abs() > 0.05]
    assert float(ratio.median()) == pytest.approx(max(CRISP, 1 - gate**2), abs=0.04)


def test_a_sample_ends_on_the_acquired_slice() -> None:
    seen = around(gate=0.0, to_below=0.0, to_above=6.0)
    assert not grain(seen).any()
    fog = images(1, 1)
    torch.testing.assert_close(sampled(fog, fog, seen, 1.0), seen.moved[:, :1])


def test_what_was_drawn_beyond_the_mean_is_added() -> None:
    seen, mean, drawn = around(0.7), images(1, 1), images(1, 1, seed=3)
    more = sampled(drawn, mean, seen, 0.5) - sampled(mean, mean, seen, 0.5)
    torch.testing.assert_close(more, DRAWN * (drawn - mean), rtol=0, atol=1e-6)
    without = sampled(mean, mean, seen, 0.0)
    torch.testing.assert_close(without, expected(mean, seen), rtol=0, atol=1e-6)
    torch.testing.assert_close(rendered(mean, seen, 0.0), without)


def test_slices_stay_in_a_narrow_gap_and_move_in_a_wide_one() -> None:
    pair = gaussian_means(images(2, 1), 2.0)
    acquired = Acquired.of(10 * (pair - pair.mean()) + 1, lambda x: F.avg_pool2d(x, 4))
    below, above = acquired.images.split(1)
    shares = []
    for width in (3.0, 6.0, 24.0):
        seen = register(acquired, nearest_context(np.array([0.0, width]), np.array([width / 2])))
        around = surroundings(acquired, seen)
        low, high = around.distance.unbind(1)
        motion = refined_motion(below, above, seen.motion, low, high)
        reach = (around.distance[0] / GAP_UNIT)[:, None, None, None]
        moved = warp(acquired.images, reach * motion) - acquired.images
        way = (around.moved[0][:, None] - acquired.images)[moved.abs() > 0.05]
        shares.append(float((way / moved[moved.abs() > 0.05]).median()))
        assert shares[-1] == pytest.approx(1 - float(1 - around.gate**2) ** 2, abs=1e-3)
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] > 0.95
