"""Interpolation of latents: the two rules without weights, and the geometry of the sphere."""

from __future__ import annotations

import pytest
import torch
from baselines.given import PLACES, neighbours, slices
from torch import Tensor

from calid.baselines.latent_rules import LatentLinear, LatentRule, LatentSpherical, slerp

pytestmark = pytest.mark.usefixtures("inside")

RULES: list[LatentRule] = [LatentLinear(), LatentSpherical()]
LOW, HIGH = PLACES[1:3]


def answer(rule: LatentRule, latents: Tensor, targets: list[float]) -> Tensor:
    return rule(neighbours(latents, targets), rule.default_steps)


def unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)


def lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=(1, 2, 3))


def shares(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None, None]


@pytest.mark.parametrize("rule", RULES)
def test_at_an_acquired_position_the_latent_is_the_slice_s_own(rule):
    known = slices()
    torch.testing.assert_close(answer(rule, known, [LOW, HIGH]), known[1:3])


def test_a_latent_that_is_a_line_in_z_is_exact():
    slope = slices()[:1]
    known = 1 + slope * torch.tensor(PLACES)[:, None, None, None]
    targets = [9.0, 12.0, 17.0]
    wanted = 1 + slope * torch.tensor(targets)[:, None, None, None]
    torch.testing.assert_close(answer(LatentLinear(), known, targets), wanted)


@pytest.mark.parametrize("rule", RULES)
def test_the_nearer_slice_weighs_more(rule):
    known = slices()
    near = answer(rule, known, [LOW + 1])[0]
    below, above = known[1:3]
    assert float((near - below).norm()) < 0.3 * float((near - above).norm())


@pytest.mark.parametrize("rule", RULES)
def test_only_the_slices_of_the_gap_matter(rule):
    known = slices()
    other = known.clone()
    other[[0, 3]] += 1
    torch.testing.assert_close(
        answer(rule, other, [12.0]), answer(rule, known, [12.0]), rtol=0, atol=0
    )


def test_slerp_keeps_the_length_of_unit_vectors_and_turns_evenly():
    first, second = unit(slices()[:1]), unit(slices(1)[:1])
    found = slerp(first.expand(4, -1, -1, -1), second, shares(0.0, 0.25, 0.5, 1.0))
    torch.testing.assert_close(lengths(found), torch.ones(4))
    turned = torch.arccos((found * first).sum((1, 2, 3)).clamp(-1, 1).double())
    torch.testing.assert_close(
        turned[1:3] / turned[3], torch.tensor([0.25, 0.5]).double(), atol=1e-3, rtol=0
    )


def test_the_sphere_keeps_energy_that_the_line_loses():
    known = slices()
    line, sphere = (lengths(answer(rule, known, [(LOW + HIGH) / 2]))[0] for rule in RULES)
    ends = lengths(known[1:3])
    assert line < 0.85 * ends.min()
    assert ends.min() * 0.95 < sphere < ends.max() * 1.05


@pytest.mark.parametrize("scale", [1.0, 3.0, 1 + 1e-4, -1.0, -2.0, 0.0])
def test_parallel_opposite_and_zero_latents_are_joined_by_a_line(scale):
    first = slices()[:1]
    found = slerp(first, scale * first, shares(0.25))
    torch.testing.assert_close(found, (0.75 + 0.25 * scale) * first, atol=1e-5, rtol=1e-5)


def test_just_before_parallel_the_sphere_and_the_line_agree():
    first, other = slices()[:1], slices(1)[:1]
    for nudge in (0.5e-3, 2e-3):  # either side of the switch
        second = first + nudge * other
        torch.testing.assert_close(
            slerp(first, second, shares(0.3)), 0.7 * first + 0.3 * second, atol=1e-4, rtol=1e-4
        )
