"""The in-plane grid of 1.5 mm: the way there, the padding, and the way back; resampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calid.geometry.grid import (
    PIXEL_SPACING,
    TILE,
    Grid,
    NetworkGrid,
    interpolation_matrix,
    resample,
)

sides = st.integers(1, 90)
steps = st.floats(0.4, 3.5)


def smooth(shape: tuple[int, int], spacing: tuple[float, float]) -> Tensor:
    """Slices of waves of 40 mm and more about the centre of the image."""
    y, x = (
        (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * s
        for n, s in zip(shape, spacing, strict=True)
    )
    waves = [
        torch.cos(2 * torch.pi * y[:, None] / 60 + 0.3) * torch.cos(2 * torch.pi * x / 50),
        torch.sin(2 * torch.pi * (y[:, None] / 70 + x / 40) + 1.0),
    ]
    return (0.5 + 0.4 * torch.stack(waves)).float()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(height=sides, width=sides, row=steps, column=steps)
def test_what_networks_see_has_sides_of_whole_tiles(
    height: int, width: int, row: float, column: float
) -> None:
    grid = NetworkGrid.of((height, width), (row, column))
    shown = grid.enter(torch.rand(2, height, width))
    assert shown.shape[0] == 2
    assert all(n % TILE == 0 and n > 0 for n in shown.shape[1:])
    assert all(0 <= p < TILE for p in grid.padding)
    for pad, (samples, step), side in zip(
        (grid.padding[2:], grid.padding[:2]), grid.network, shown.shape[1:], strict=True
    ):
        assert step == PIXEL_SPACING
        assert sum(pad) + samples == side
        assert abs(pad[0] - pad[1]) <= 1  # the heart stays in the middle
    back = grid.leave(shown)
    assert back.shape == (2, height, width)
    assert back.isfinite().all()


@pytest.mark.parametrize("shape", [(33, 47), (16, 17), (1, 31), (64, 64), (15, 1)])
def test_images_on_the_networks_pixels_come_back_bit_for_bit(shape):
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    grid = NetworkGrid.of(shape, (PIXEL_SPACING, PIXEL_SPACING))
    shown = grid.enter(images)
    assert torch.equal(grid.leave(shown), images)
    left, right, top, bottom = grid.padding
    inner = shown[:, top : shown.shape[1] - bottom, left : shown.shape[2] - right]
    assert torch.equal(inner, images)


def test_the_padding_repeats_the_border():
    images = torch.rand(2, 21, 37, generator=torch.Generator().manual_seed(0))
    grid = NetworkGrid.of((21, 37), (1.5, 1.5))
    left, right, top, bottom = grid.padding
    assert (left, right, top, bottom) == (5, 6, 5, 6)
    expected = np.pad(images.numpy(), ((0, 0), (top, bottom), (left, right)), mode="edge")
    np.testing.assert_array_equal(grid.enter(images).numpy(), expected)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((101, 89), (1.4, 1.7)), ((75, 120), (2.1, 0.9)), ((97, 61), (1.25, 1.5))],
)
def test_smooth_images_come_back_from_another_pixel_size(shape, spacing):
    images = smooth(shape, spacing)
    grid = NetworkGrid.of(shape, spacing)
    back = grid.leave(grid.enter(images))
    error = (back - images).abs()
    inside = error[:, 4:-4, 4:-4]
    assert float(inside.max()) < 0.02
    assert float(error.mean()) < 0.01


def millimetres(grid: Grid) -> np.ndarray:
    """Positions of the samples, 0 in the centre."""
    count, step = grid
    return (np.arange(count) - (count - 1) / 2) * step


def inside(source: Grid, target: Grid) -> np.ndarray:
    """Target samples whose whole kernel lies on the source."""
    reach = 2 * max(source[1], target[1])
    edge = (source[0] - 1) / 2 * source[1]
    return np.abs(millimetres(target)) <= edge - reach


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n_in=st.integers(1, 60),
    n_out=st.integers(1, 60),
    step_in=st.floats(0.5, 4),
    step_out=st.floats(0.5, 4),
)
def test_rows_sum_to_one_and_the_grid_is_symmetric(
    n_in: int, n_out: int, step_in: float, step_out: float
) -> None:
    matrix = interpolation_matrix((n_in, step_in), (n_out, step_out))
    assert matrix.shape == (n_out, n_in)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-4)


@pytest.mark.parametrize("grid", [(1, 1.5), (16, 1.5), (17, 0.7)])
def test_a_grid_onto_itself_is_the_identity(grid: Grid) -> None:
    np.testing.assert_allclose(interpolation_matrix(grid, grid), np.eye(grid[0]), atol=1e-6)


def test_equal_grids_hand_the_image_back() -> None:
    x = torch.rand(2, 20, 30)
    grids = ((20, 1.5), (30, 1.5))
    assert resample(x, grids, grids) is x
    assert resample(x, grids, ((20, 1.5000001), (30, 1.5))) is x


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((66, 1.5), (100, 1.0)),
        ((50, 3.0), (100, 1.5)),
        ((80, 1.4), (90, 1.25)),
        ((101, 1.0), (50, 2.0)),
        ((51, 1.0), (64, 1.0)),
    ],
)
def test_a_ramp_in_millimetres_stays_that_ramp(source: Grid, target: Grid) -> None:
    out = interpolation_matrix(source, target).astype(float) @ millimetres(source)
    keep = inside(source, target)
    assert keep.sum() > 30
    np.testing.assert_allclose(out[keep], millimetres(target)[keep], atol=1e-4)


@pytest.mark.parametrize("step", [1.1, 1.25, 1.4, 1.7, 2.3])
def test_coarsening_by_any_factor_moves_nothing_by_more_than_a_fortieth_of_a_pixel(
    step: float,
) -> None:
    source, target = (120, 1.0), (int(100 / step), step)
    out = interpolation_matrix(source, target).astype(float) @ millimetres(source)
    keep = inside(source, target)
    np.testing.assert_allclose(out[keep], millimetres(target)[keep], atol=0.025 * step)


def test_a_parabola_is_interpolated_exactly() -> None:
    # Keys' kernel is of third order: polynomials up to degree two are exact.
    source, target = (60, 1.5), (85, 1.0)
    out = interpolation_matrix(source, target).astype(float) @ (millimetres(source) ** 2)
    keep = inside(source, target)
    np.testing.assert_allclose(out[keep], millimetres(target)[keep] ** 2, atol=2e-3)


def test_beyond_the_edge_the_edge_value_is_repeated() -> None:
    matrix = interpolation_matrix((10, 1.0), (30, 1.0))
    values = np.arange(10.0) + 5
    out = matrix @ values
    np.testing.assert_allclose(out[:10], 5, atol=1e-5)
    np.testing.assert_allclose(out[10:20], values, atol=1e-5)
    np.testing.assert_allclose(out[20:], 14, atol=1e-5)


def picture(rows: Grid, columns: Grid) -> Tensor:
    """Smooth function of millimetres, different along both axes."""
    y, x = millimetres(rows)[:, None], millimetres(columns)[None]
    return torch.from_numpy(np.sin(x / 9 + y / 15) + np.exp(-(x**2 + 2 * y**2) / 400))


def test_both_axes_are_resampled_at_their_own_spacing() -> None:
    source, target = ((50, 1.6), (40, 2.0)), ((64, 1.2), (60, 1.3))
    images = torch.stack([picture(*source), -2 * picture(*source)])
    out = resample(images, source, target)
    keep = np.ix_(inside(source[0], target[0]), inside(source[1], target[1]))
    np.testing.assert_allclose(out[0][keep], picture(*target)[keep], atol=2e-3)
    torch.testing.assert_close(out[1], -2 * out[0])


def test_coarsening_removes_what_the_coarse_grid_cannot_hold() -> None:
    source, target = (200, 1.0), (66, 3.0)  # Nyquist: one cycle in 6 mm
    keep = inside(source, target)
    matrix = interpolation_matrix(source, target)
    low, high = (
        matrix @ np.cos(2 * np.pi * millimetres(source) / period + 0.4) for period in (30.0, 3.3)
    )
    expected = np.cos(2 * np.pi * millimetres(target) / 30.0 + 0.4)
    np.testing.assert_allclose(low[keep], expected[keep], atol=0.05)
    assert np.abs(high[keep]).max() < 0.05
    # Picking every third sample would have kept it at full strength, at a wrong frequency.
    picked = np.cos(2 * np.pi * millimetres(target) / 3.3 + 0.4)
    assert np.abs(picked).max() > 0.9


def test_the_dtype_is_kept() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        out = resample(torch.ones(3, 8, 8, dtype=dtype), ((8, 2.0), (8, 2.0)), ((16, 1.0), (8, 2)))
        assert out.dtype == dtype
        assert out.shape == (3, 16, 8)
        torch.testing.assert_close(out, torch.ones_like(out), rtol=0, atol=0.01)
