"""Inversion against the exact denoiser of a one-dimensional Gaussian, as the samplers are."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calid.diffusion.sampler import Denoise, ddim, invert
from calid.diffusion.schedule import Schedule, rectified_flow, time_grid, variance_preserving

MEAN, SD = 2.0, 0.5
COUNTS = (1000, 100, 20, 4, 1)
SCHEDULES = (rectified_flow, variance_preserving)
LEFT = 0.0066
"""Share of the data that variance_preserving keeps at t = 1."""


def oracle(m: float, s: float, schedule: Schedule) -> Denoise:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (v.to(x)[:, None] for v in schedule(t))
        gain = alpha * s**2 / (alpha**2 * s**2 + sigma**2)
        return m + gain * (x - alpha * m)

    return denoise


def grid(steps: int) -> Tensor:
    return time_grid(steps).double()


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def inverted(schedule: Schedule, steps: int, m: float = MEAN, s: float = SD) -> tuple[float, float]:
    """Noise of the mean, and by how much it differs for one standard deviation more."""
    data = column(m, m + s, m - 2 * s)
    low, high, far = invert(oracle(m, s, schedule), data, schedule, grid(steps).flip(0))[:, 0]
    assert float(far) == pytest.approx(float(low - 2 * (high - low)), abs=1e-9), "it is affine"
    return float(low), float(high - low)


def there_and_back(
    schedule: Schedule, steps: int, m: float = MEAN, s: float = SD
) -> tuple[float, float]:
    """What becomes of the mean, and of a deviation of 1 from it, in ``ddim(invert(x))``."""
    denoise = oracle(m, s, schedule)
    noise = invert(denoise, column(m, m + 1.0), schedule, grid(steps).flip(0))
    low, high = ddim(denoise, noise, schedule, grid(steps))[:, 0].tolist()
    return low, high - low


def scale(schedule: Schedule, times: Tensor, s: float) -> float:
    """Closed form: the factor by which steps between ``times`` scale a deviation."""
    factor = 1.0
    for t, u in itertools.pairwise(times):
        (a, b), (c, d) = ([float(v) for v in schedule(w)] for w in (t, u))
        factor *= (c * a * s**2 + d * b) / (a**2 * s**2 + b**2)
    return factor


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_mean_of_the_data_becomes_the_mean_of_the_noise_at_any_count(
    schedule: Schedule, steps: int
) -> None:
    left = float(schedule(torch.tensor(1.0, dtype=torch.float64))[0])
    assert left <= LEFT
    assert inverted(schedule, steps)[0] == pytest.approx(left * MEAN, abs=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_standard_deviation_becomes_a_unit_of_noise_to_first_order(schedule: Schedule) -> None:
    errors = [inverted(schedule, n)[1] - 1 for n in (100, 200, 400, 800)]
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2.0, abs=0.15)
    assert abs(errors[-1]) < 0.02


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_inversion_has_the_closed_form(schedule: Schedule, steps: int) -> None:
    expected = SD * scale(schedule, grid(steps).flip(0), SD)
    assert inverted(schedule, steps)[1] == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_there_and_back_returns_the_mean_at_any_count(schedule: Schedule, steps: int) -> None:
    assert there_and_back(schedule, steps)[0] == pytest.approx(MEAN, abs=1e-9)


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


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_point_mass_is_found_again_at_once(schedule: Schedule, steps: int) -> None:
    assert there_and_back(schedule, steps, s=0.0) == pytest.approx((MEAN, 0), abs=1e-9)


def test_one_step_keeps_only_what_the_path_keeps() -> None:
    data = column(1.5)
    out = invert(oracle(MEAN, SD, variance_preserving), data, variance_preserving, grid(1).flip(0))
    assert float(out) == pytest.approx(LEFT * 1.5, rel=0.01)


def test_inversion_evaluates_forwards_in_time_and_never_at_0_or_1() -> None:
    seen: list[float] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (5,)
        seen.append(float(t[0]))
        return torch.zeros_like(x)

    data = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    out = invert(denoise, data, rectified_flow, time_grid(4).flip(0))
    assert seen == [0.25, 0.5, 0.75]
    # Zero as the estimate calls everything noise: x / sigma stays what it was after a step.
    torch.testing.assert_close(out, 0.75 * data / 0.25)
