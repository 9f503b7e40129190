from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calid.diffusion import (
    Schedule,
    data_from_noise,
    diffuse,
    logit_normal,
    rectified_flow,
    time_grid,
    variance_preserving,
    velocity,
)

SCHEDULES = (rectified_flow, variance_preserving)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_data_comes_back_from_the_true_noise(schedule: Schedule) -> None:
    data, noise = numbers(5, 2, 3, 4), numbers(5, 2, 3, 4, seed=1)
    t = torch.tensor([0.001, 0.2, 0.5, 0.9, 0.99], dtype=torch.float64)
    x = diffuse(data, noise, t, schedule)
    torch.testing.assert_close(data_from_noise(noise, x, t, schedule), data)


def test_the_velocity_is_the_slope_of_the_straight_path() -> None:
    data, noise = numbers(3, 4), numbers(3, 4, seed=1)
    t = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
    step = diffuse(data, noise, t + 0.1, rectified_flow) - diffuse(data, noise, t, rectified_flow)
    torch.testing.assert_close(step / 0.1, velocity(data, noise))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_element_of_a_batch_has_its_own_time(schedule: Schedule) -> None:
    data, noise = numbers(3, 2, 2), numbers(3, 2, 2, seed=1)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    together = diffuse(data, noise, t, schedule)
    for k in range(3):
        alone = diffuse(data[k : k + 1], noise[k : k + 1], t[k : k + 1], schedule)
        torch.testing.assert_close(together[k : k + 1], alone)
    alpha, sigma = schedule(t)
    assert together[1, 0, 0] == pytest.approx(
        float(alpha[1] * data[1, 0, 0] + sigma[1] * noise[1, 0, 0])
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_paths_run_from_data_to_noise(schedule: Schedule) -> None:
    alpha, sigma = schedule(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert (float(alpha[0]), float(sigma[0])) == (1.0, 0.0)
    assert bool((alpha.diff() < 0).all())
    assert bool((sigma.diff() > 0).all())
    assert float(alpha[-1]) == pytest.approx(0.0066 if schedule is variance_preserving else 0, 0.01)


def test_the_variance_preserving_path_preserves_variance_even_near_zero() -> None:
    t = torch.cat([torch.linspace(0, 1, 501), torch.logspace(-6, -3, 20)])
    alpha, sigma = variance_preserving(t)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(t))
    small = torch.tensor([1e-6, 1e-5, 1e-4])
    # sigma^2 is 0.1 t there; 1 - alpha^2 in float32 would lose it.
    torch.testing.assert_close(
        variance_preserving(small)[1].square(), 0.1 * small + 9.95 * small**2, rtol=1e-4, atol=0
    )


def test_the_variance_preserving_path_is_the_limit_of_a_thousand_small_steps() -> None:
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    discrete = torch.cumprod(1 - beta, 0).sqrt()
    alpha, sigma = variance_preserving(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    # A step of size beta multiplies by 1 - beta, the limit by exp(-beta): the logarithms of
    # alpha differ by a quarter of the sum of beta^2, which is 0.034, plus half a step of t.
    assert float((discrete.log() - alpha.log()).abs().max()) < 0.05
    assert float((discrete - alpha).abs().max()) < 2e-3
    assert float(((1 - discrete**2).sqrt() - sigma).abs().max()) < 2e-3


@settings(max_examples=30, deadline=None, derandomize=True)
@given(normal=st.floats(-8, 8))
def test_training_times_are_inside_the_unit_interval(normal: float) -> None:
    t = float(logit_normal(torch.tensor(normal, dtype=torch.float64)))
    assert 0 < t < 1


def test_training_times_are_dense_in_the_middle() -> None:
    t = logit_normal(numbers(20_000))
    assert float(t.median()) == pytest.approx(0.5, abs=0.01)
    # sigmoid(z) lies in the middle half for |z| < ln 3: 72.8 % of a standard normal.
    assert float(((t > 0.25) & (t < 0.75)).double().mean()) == pytest.approx(0.728, abs=0.01)
    assert float(logit_normal(torch.tensor(1.0))) == pytest.approx(0.7311, abs=1e-4)


def test_time_grids_fall_evenly_from_one_to_zero() -> None:
    assert time_grid(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    for steps in (1, 7, 1000):
        times = time_grid(steps)
        assert (len(times), float(times[0]), float(times[-1])) == (steps + 1, 1.0, 0.0)
        torch.testing.assert_close(
            times.diff(), torch.full((steps,), -1 / steps), rtol=1e-3, atol=0
        )


@pytest.mark.parametrize("steps", [0, -3])
def test_a_grid_without_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="at least one step"):
        time_grid(steps)
