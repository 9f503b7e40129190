"""Samplers against an oracle: the exact denoiser of a one-dimensional Gaussian.

With it every update is affine in the state and in the fresh noise, so mean and standard
deviation of what a sampler returns are computed from unit vectors, not estimated.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calid.diffusion.sampler import Denoise, ancestral, ddim, euler, heun
from calid.diffusion.schedule import Schedule, rectified_flow, time_grid, variance_preserving

MEAN, SD = 2.0, 0.5
COUNTS = (1000, 100, 20, 4, 1)
SCHEDULES = (rectified_flow, variance_preserving)
LEFT = 0.0066
"""Share of the data that variance_preserving keeps at t = 1."""

Moments = tuple[float, float]


def oracle(m: float, s: float, schedule: Schedule) -> Denoise:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (v.to(x)[:, None] for v in schedule(t))
        gain = alpha * s**2 / (alpha**2 * s**2 + sigma**2)
        return m + gain * (x - alpha * m)

    return denoise


def grid(steps: int) -> Tensor:
    return time_grid(steps).double()


def deterministic(
    sampler: object, schedule: Schedule, steps: int, m: float = MEAN, s: float = SD
) -> Moments:
    """Mean and standard deviation of a map of one standard normal number."""
    start = torch.tensor([[0.0], [1.0], [-2.0]], dtype=torch.float64)
    low, high, far = sampler(oracle(m, s, schedule), start, schedule, grid(steps))[:, 0].tolist()  # type: ignore[operator]
    assert far == pytest.approx(low - 2 * (high - low), abs=1e-9), "the map is affine"
    return low, high - low


def stochastic(
    schedule: Schedule, steps: int, known: bool, m: float = MEAN, s: float = SD
) -> Moments:
    """The same for `ancestral`: row k of the batch gets a 1 at the k-th draw and 0 elsewhere."""
    count = 0

    def draw() -> Tensor:
        nonlocal count
        count += 1
        noise = torch.zeros(steps + 2, 1, dtype=torch.float64)
        noise[count] = 1.0
        return noise

    def variance(t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        return s**2 * sigma**2 / (alpha**2 * s**2 + sigma**2)

    start = torch.zeros(steps + 2, 1, dtype=torch.float64)
    start[0] = 1.0
    out = ancestral(
        oracle(m, s, schedule), start, schedule, grid(steps), draw, variance if known else None
    )[:, 0]
    assert count == steps, "one draw a step"
    return float(out[-1]), float((out[:-1] - out[-1]).square().sum().sqrt())


def ddim_share(schedule: Schedule, steps: int, s: float = SD) -> float:
    """Closed form: by which factor ddim scales a deviation from the mean, over all steps."""
    share = 1.0
    for k in range(steps, 0, -1):
        (a, b), (c, d) = (
            [float(v) for v in schedule(torch.tensor(j / steps, dtype=torch.float64))]
            for j in (k, k - 1)
        )
        share *= (c * a * s**2 + d * b) / (a**2 * s**2 + b**2)
    return share


def test_an_exact_oracle_is_the_posterior_mean() -> None:
    # By Monte-Carlo, so that nothing below rests on a wrong formula.
    generator = torch.Generator().manual_seed(0)
    data = MEAN + SD * torch.randn(400_000, generator=generator, dtype=torch.float64)
    noise = torch.randn(400_000, generator=generator, dtype=torch.float64)
    alpha, sigma = rectified_flow(torch.tensor(0.4, dtype=torch.float64))
    x = alpha * data + sigma * noise
    near = (x - 1.5).abs() < 0.05
    estimate = oracle(MEAN, SD, rectified_flow)(x[near][:, None], torch.tensor([0.4]))
    assert float(estimate.mean()) == pytest.approx(float(data[near].mean()), abs=0.01)


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("sampler", [ddim, heun])
def test_deterministic_samplers_have_the_exact_mean_on_the_straight_path(
    sampler: object, steps: int
) -> None:
    assert deterministic(sampler, rectified_flow, steps)[0] == pytest.approx(MEAN, abs=1e-9)


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("sampler", [ddim, heun])
def test_on_the_variance_preserving_path_the_mean_is_off_by_the_stated_share(
    sampler: object, steps: int
) -> None:
    mean, sd = deterministic(sampler, variance_preserving, steps)
    assert -LEFT * MEAN < mean - MEAN <= 0
    # The start is too low by LEFT * MEAN and the sampler scales that as any deviation.
    assert mean - MEAN == pytest.approx(-LEFT * MEAN * sd, rel=0.01)


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_has_the_standard_deviation_of_the_closed_form(schedule: Schedule, steps: int) -> None:
    sd = deterministic(ddim, schedule, steps)[1]
    assert sd == pytest.approx(ddim_share(schedule, steps), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_is_of_first_order(schedule: Schedule) -> None:
    errors = [SD - deterministic(ddim, schedule, n)[1] for n in (50, 100, 200, 400)]
    assert errors[0] > 0
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2.0, abs=0.06)
    assert SD - deterministic(ddim, schedule, 1000)[1] < 0.002


def test_heun_is_of_second_order_on_the_straight_path() -> None:
    errors = [SD - deterministic(heun, rectified_flow, n)[1] for n in (100, 200, 400, 800)]
    for coarse, fine in itertools.pairwise(errors):
        assert 3.4 < coarse / fine < 4.1
    assert abs(errors[-1]) < 2e-5


@pytest.mark.parametrize(("steps", "gain"), [(20, 1.7), (100, 4.0), (1000, 10.0)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_heun_beats_ddim_and_the_more_so_the_more_steps(
    schedule: Schedule, steps: int, gain: float
) -> None:
    first, second = (abs(SD - deterministic(f, schedule, steps)[1]) for f in (ddim, heun))
    assert second * gain < first


@pytest.mark.parametrize("sampler", [ddim, heun])
def test_one_deterministic_step_returns_the_mean(sampler: object) -> None:
    assert deterministic(sampler, rectified_flow, 1) == (MEAN, 0.0)
    mean, sd = deterministic(sampler, variance_preserving, 1)
    assert mean == pytest.approx(MEAN, abs=1e-3)
    assert sd == pytest.approx(LEFT * SD**2, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_sampler_finds_a_point_mass_at_once(schedule: Schedule, steps: int) -> None:
    for sampler in (ddim, heun):
        assert deterministic(sampler, schedule, steps, s=0.0) == pytest.approx((MEAN, 0), abs=1e-9)
    for known in (False, True):
        assert stochastic(schedule, steps, known, s=0.0) == pytest.approx((MEAN, 0), abs=1e-9)


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ancestral_with_the_posterior_variance_is_exact_at_any_count(
    schedule: Schedule, steps: int
) -> None:
    mean, sd = stochastic(schedule, steps, known=True)
    slack = LEFT * MEAN if schedule is variance_preserving else 1e-6
    assert mean == pytest.approx(MEAN, abs=slack)
    # N(0, 1) instead of the true N(LEFT * m, .) at the start costs less than LEFT^2.
    assert sd == pytest.approx(SD, abs=1e-4 if schedule is variance_preserving else 1e-6)


@pytest.mark.parametrize("steps", COUNTS)
def test_ancestral_without_the_variance_is_too_narrow_and_converges(steps: int) -> None:
    mean, sd = stochastic(rectified_flow, steps, known=False)
    assert mean == pytest.approx(MEAN, abs=1e-6)
    assert sd < SD
    if steps == 1:
        assert sd == 0
    if steps == 1000:
        assert sd == pytest.approx(SD, abs=0.01)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(m=st.floats(-5, 5), s=st.floats(0.05, 3), steps=st.integers(1, 12))
def test_other_gaussians(m: float, s: float, steps: int) -> None:
    assert deterministic(ddim, rectified_flow, steps, m, s) == pytest.approx(
        (m, ddim_share(rectified_flow, steps, s)), rel=1e-4, abs=1e-6
    )
    assert deterministic(heun, rectified_flow, steps, m, s)[0] == pytest.approx(m, abs=1e-6)
    assert stochastic(rectified_flow, steps, True, m, s) == pytest.approx((m, s), abs=1e-5)


@pytest.mark.parametrize("steps", COUNTS)
def test_noise_itself_passes_unchanged_through_the_variance_preserving_path(steps: int) -> None:
    # For N(0, 1) alpha^2 s^2 + sigma^2 = 1: ddim is a rotation by the angle between two times.
    mean, sd = deterministic(ddim, variance_preserving, steps, 0.0, 1.0)
    alphas = variance_preserving(grid(steps))[0].tolist()
    angles = [math.acos(min(a, 1.0)) for a in alphas]
    turns = itertools.pairwise(angles)
    assert mean == 0
    assert sd == pytest.approx(math.prod(math.cos(a - b) for a, b in turns), rel=1e-6)
    assert stochastic(variance_preserving, steps, True, 0.0, 1.0) == pytest.approx(
        (0.0, 1.0), abs=1e-6
    )


@pytest.mark.parametrize(("sampler", "evaluations"), [(ddim, 4), (heun, 7)])
def test_evaluations_are_as_stated(sampler: object, evaluations: int) -> None:
    seen: list[float] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (5,)
        seen.append(float(t[0]))
        return torch.zeros_like(x)

    noise = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    out = sampler(denoise, noise, rectified_flow, time_grid(4))  # type: ignore[operator]
    assert len(seen) == evaluations
    assert min(seen) == 0.25, "never at t = 0, where nothing is left to estimate"
    torch.testing.assert_close(out, torch.zeros_like(noise))


@pytest.mark.parametrize("steps", COUNTS)
def test_euler_goes_the_way_of_ddim_on_the_straight_path(steps: int) -> None:
    denoise = oracle(MEAN, SD, rectified_flow)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        # From noise at 0 to data at 1: ddim's time runs the other way.
        return (denoise(x, 1 - t) - x) / (1 - t)[:, None].double()

    low, high = euler(velocity, torch.tensor([[0.0], [1.0]], dtype=torch.float64), steps)[:, 0]
    wanted = deterministic(ddim, rectified_flow, steps)
    assert (float(low), float(high - low)) == pytest.approx(wanted, abs=1e-6)


def test_euler_takes_at_least_one_step() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        euler(lambda x, t: x, torch.zeros(1, 1), 0)
