"""The networks' in-plane grid: the way there, the padding, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calid.geometry.grid import PIXEL_SPACING, TILE, NetworkGrid
from calid.geometry.resample import resample

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


def test_the_networks_grid_has_the_same_centre():
    shape, spacing = (101, 88), (1.37, 1.8)
    grid = NetworkGrid.of(shape, spacing)
    shown = grid.enter(smooth(shape, spacing))
    left, right, top, bottom = grid.padding
    inner = shown[:, top : shown.shape[1] - bottom, left : shown.shape[2] - right]
    direct = smooth(tuple(inner.shape[1:]), (1.5, 1.5))  # type: ignore[arg-type]
    assert float((inner - direct)[:, 4:-4, 4:-4].abs().max()) < 0.02


@pytest.mark.slow
def test_the_field_of_view_is_kept():
    grid = NetworkGrid.of((256, 216), (1.25, 1.5625))
    assert grid.native == ((256, 1.25), (216, 1.5625))
    assert grid.network == ((213, 1.5), (225, 1.5))
    images = torch.rand(1, 256, 216, generator=torch.Generator().manual_seed(0))
    direct = resample(images, grid.native, grid.network)
    left, right, top, bottom = grid.padding
    shown = grid.enter(images)
    assert shown.shape == (1, 224, 240)
    torch.testing.assert_close(shown[:, top : 224 - bottom, left : 240 - right], direct)
