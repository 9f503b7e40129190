"""Samplers against an oracle: the exact denoiser of a one-dimensional Gaussian.

With it every update is affine in the state, so mean and standard deviation of what a sampler
returns are computed from two starts, not estimated.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calid.diffusion import (
    Predict,
    Schedule,
    adams_bashforth,
    ddim,
    invert,
    rectified_flow,
    time_grid,
    variance_preserving,
)

MEAN, SD = 2.0, 0.5
COUNTS = (1000, 100, 20, 4, 1)
SCHEDULES = (rectified_flow, variance_preserving)
LEFT = 0.0066
"""Share of the data that variance_preserving keeps at t = 1."""

Moments = tuple[float, float]


def oracle(m: float, s: float, schedule: Schedule) -> Predict:
    """Predicts the data itself."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (v.to(x)[:, None] for v in schedule(t))
        gain = alpha * s**2 / (alpha**2 * s**2 + sigma**2)
        return m + gain * (x - alpha * m)

    return denoise


def as_it_is(prediction: Tensor, x: Tensor, t: Tensor) -> Tensor:
    return prediction


def grid(steps: int) -> Tensor:
    return time_grid(steps).double()


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def sampled(schedule: Schedule, steps: int, m: float = MEAN, s: float = SD) -> Moments:
    """Mean and standard deviation of what ddim makes of one standard normal number."""
    denoise = oracle(m, s, schedule)
    low, high, far = ddim(denoise, as_it_is, column(0, 1, -2), schedule, grid(steps))[:, 0].tolist()
    assert far == pytest.approx(low - 2 * (high - low), abs=1e-9), "the map is affine"
    return low, high - low


def scale(schedule: Schedule, times: Tensor, s: float = SD) -> float:
    """Closed form: the factor by which steps between ``times`` scale a deviation."""
    factor = 1.0
    for t, u in itertools.pairwise(times):
        (a, b), (c, d) = ([float(v) for v in schedule(w)] for w in (t, u))
        factor *= (c * a * s**2 + d * b) / (a**2 * s**2 + b**2)
    return factor


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
def test_ddim_has_the_exact_mean_on_the_straight_path(steps: int) -> None:
    assert sampled(rectified_flow, steps)[0] == pytest.approx(MEAN, abs=1e-9)


@pytest.mark.parametrize("steps", COUNTS)
def test_on_the_variance_preserving_path_the_mean_is_off_by_the_stated_share(steps: int) -> None:
    mean, sd = sampled(variance_preserving, steps)
    assert -LEFT * MEAN < mean - MEAN <= 0
    # The start is too low by LEFT * MEAN and the sampler scales that as any deviation.
    assert mean - MEAN == pytest.approx(-LEFT * MEAN * sd, rel=0.01)


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_has_the_standard_deviation_of_the_closed_form(schedule: Schedule, steps: int) -> None:
    sd = sampled(schedule, steps)[1]
    assert sd == pytest.approx(scale(schedule, grid(steps)), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_is_of_first_order(schedule: Schedule) -> None:
    errors = [SD - sampled(schedule, n)[1] for n in (50, 100, 200, 400)]
    assert errors[0] > 0
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2.0, abs=0.06)
    assert SD - sampled(schedule, 1000)[1] < 0.002


def test_one_step_returns_the_mean() -> None:
    assert sampled(rectified_flow, 1) == (MEAN, 0.0)
    mean, sd = sampled(variance_preserving, 1)
    assert mean == pytest.approx(MEAN, abs=1e-3)
    assert sd == pytest.approx(LEFT * SD**2, rel=0.01)


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_point_mass_is_found_at_once(schedule: Schedule, steps: int) -> None:
    assert sampled(schedule, steps, s=0.0) == pytest.approx((MEAN, 0), abs=1e-9)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(m=st.floats(-5, 5), s=st.floats(0.05, 3), steps=st.integers(1, 12))
def test_other_gaussians(m: float, s: float, steps: int) -> None:
    wanted = (m, scale(rectified_flow, grid(steps), s))
    assert sampled(rectified_flow, steps, m, s) == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("steps", COUNTS)
def test_noise_itself_passes_unchanged_through_the_variance_preserving_path(steps: int) -> None:
    # For N(0, 1) alpha^2 s^2 + sigma^2 = 1: ddim is a rotation by the angle between two times.
    mean, sd = sampled(variance_preserving, steps, 0.0, 1.0)
    alphas = variance_preserving(grid(steps))[0].tolist()
    angles = [math.acos(min(a, 1.0)) for a in alphas]
    turns = itertools.pairwise(angles)
    assert mean == 0
    assert sd == pytest.approx(math.prod(math.cos(a - b) for a, b in turns), rel=1e-6)


@pytest.mark.parametrize("backwards", [False, True])
def test_evaluations_are_at_the_stated_times(backwards: bool) -> None:
    seen: list[float] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (5,)
        seen.append(float(t[0]))
        return torch.zeros_like(x)

    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    if backwards:
        out = invert(denoise, as_it_is, x, rectified_flow, time_grid(4).flip(0))
        assert seen == [0.25, 0.5, 0.75], "never at 0, where the data is known, nor at 1"
        # Zero as the estimate calls everything noise: x / sigma stays what it was after a step.
        torch.testing.assert_close(out, 0.75 * x / 0.25)
    else:
        out = ddim(denoise, as_it_is, x, rectified_flow, time_grid(4))
        assert seen == [1, 0.75, 0.5, 0.25], "never at 0, where nothing is left to estimate"
        torch.testing.assert_close(out, torch.zeros_like(x))


def solved(steps: int, m: float = MEAN, s: float = SD, rising: bool = False) -> Moments:
    """As `sampled`, of `adams_bashforth` on the straight path, from either end of time."""
    denoise = oracle(m, s, rectified_flow)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        back = 1 - t if rising else t
        speed = (x - denoise(x, back)) / back[:, None]
        return -speed if rising else speed

    times = 1 - grid(steps) if rising else grid(steps)
    low, high = adams_bashforth(velocity, column(0, 1), times)[:, 0].tolist()
    return low, high - low


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("steps", COUNTS)
def test_adams_bashforth_has_the_exact_mean(steps: int, rising: bool) -> None:
    assert solved(steps, rising=rising)[0] == pytest.approx(MEAN, abs=1e-9)


def test_adams_bashforth_is_of_second_order() -> None:
    errors = [abs(SD - solved(n)[1]) for n in (50, 100, 200, 400)]
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(4.0, abs=0.4)
    assert SD - solved(1000)[1] < 1e-5
    # With as many evaluations, far closer than the method of first order.
    for steps in (20, 4):
        assert abs(SD - solved(steps)[1]) < (SD - sampled(rectified_flow, steps)[1]) / 2


def test_one_step_of_adams_bashforth_is_one_of_euler() -> None:
    assert solved(1) == pytest.approx((MEAN, 0.0), abs=1e-9)
    assert solved(1, s=2.0) == pytest.approx((MEAN, 0.0), abs=1e-9)


@pytest.mark.parametrize("steps", COUNTS)
def test_adams_bashforth_finds_a_point_mass_at_once(steps: int) -> None:
    assert solved(steps, s=0.0) == pytest.approx((MEAN, 0), abs=1e-9)


def test_steps_of_unequal_length_are_exact_where_the_velocity_changes_evenly() -> None:
    times = torch.tensor([0.0, 0.1, 0.4, 0.5, 1.0], dtype=torch.float64)
    seen: list[float] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return torch.full_like(x, 3.0) + 2 * t[:, None]

    out = adams_bashforth(velocity, torch.zeros(2, 1, dtype=torch.float64), times)
    # Its first step, Euler's, lacks 0.1^2.
    torch.testing.assert_close(out, torch.full_like(out, 3.0 + 1.0 - 0.01))
    assert seen == times[:-1].tolist(), "one evaluation a step"


def inverted(schedule: Schedule, steps: int, m: float = MEAN, s: float = SD) -> Moments:
    """Noise of the mean, and by how much it differs for one standard deviation more."""
    data, times = column(m, m + s, m - 2 * s), grid(steps).flip(0)
    low, high, far = invert(oracle(m, s, schedule), as_it_is, data, schedule, times)[:, 0]
    assert float(far) == pytest.approx(float(low - 2 * (high - low)), abs=1e-9), "it is affine"
    return float(low), float(high - low)


def there_and_back(schedule: Schedule, steps: int, m: float = MEAN, s: float = SD) -> Moments:
    """What becomes of the mean, and of a deviation of 1 from it, in ``ddim(invert(x))``."""
    denoise, times = oracle(m, s, schedule), grid(steps)
    noise = invert(denoise, as_it_is, column(m, m + 1.0), schedule, times.flip(0))
    low, high = ddim(denoise, as_it_is, noise, schedule, times)[:, 0].tolist()
    return low, high - low


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_mean_of_the_data_becomes_the_mean_of_the_noise_and_comes_back(
    schedule: Schedule, steps: int
) -> None:
    left = float(schedule(torch.tensor(1.0, dtype=torch.float64))[0])
    assert left <= LEFT
    noise = inverted(schedule, steps)
    assert noise[0] == pytest.approx(left * MEAN, abs=1e-9)
    expected = SD * scale(schedule, grid(steps).flip(0))
    assert noise[1] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert there_and_back(schedule, steps)[0] == pytest.approx(MEAN, abs=1e-9)
    assert there_and_back(schedule, steps, s=0.0) == pytest.approx((MEAN, 0), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("s", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_there_and_back_returns_the_data_to_first_order(schedule: Schedule, s: float) -> None:
    errors = [1 - there_and_back(schedule, n, s=s)[1] for n in (200, 400, 800, 1600)]
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2.0, abs=0.25)
    assert abs(errors[-1]) < 0.02


def test_a_hundred_steps_return_unit_variance_data_to_a_few_percent() -> None:
    # Latents have unit variance and 100 is the baseline's count.
    assert there_and_back(variance_preserving, 100, 0.0, 1.0)[1] == pytest.approx(1, abs=0.04)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(m=st.floats(-5, 5), s=st.floats(0.05, 3), steps=st.integers(1, 12))
def test_other_gaussians_there_and_back(m: float, s: float, steps: int) -> None:
    times = grid(steps)
    factor = scale(rectified_flow, times.flip(0), s) * scale(rectified_flow, times, s)
    assert there_and_back(rectified_flow, steps, m, s) == pytest.approx((m, factor), abs=1e-6)


def test_one_step_keeps_only_what_the_path_keeps() -> None:
    schedule, times = variance_preserving, grid(1).flip(0)
    out = invert(oracle(MEAN, SD, schedule), as_it_is, column(1.5), schedule, times)
    assert float(out) == pytest.approx(LEFT * 1.5, rel=0.01)
