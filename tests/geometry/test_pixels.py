"""The way to the interpolator's grid and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calid.geometry.pixels import FINEST, TILE, PixelGrid


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.1, 1.9), (2.5, 1.25), (0.9999, 1.0)])
def test_pixels_that_are_not_too_fine_come_back_bit_for_bit(spacing: tuple[float, float]) -> None:
    images = noise(3, 37, 50).float()
    grid = PixelGrid.of(images.shape, spacing)
    assert grid.spacing == spacing
    assert torch.equal(grid.leave(grid.enter(images)), images)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    height=st.integers(3, 70),
    width=st.integers(3, 70),
    spacing=st.tuples(st.floats(0.3, 2.5), st.floats(0.3, 2.5)),
)
def test_there_and_back_loses_nothing_that_the_grid_can_hold(
    height: int, width: int, spacing: tuple[float, float]
) -> None:
    grid = PixelGrid.of((height, width), spacing)
    enlarged = grid.leave(grid.enter(noise(2, height, width)))
    assert enlarged.shape == (2, height, width)
    torch.testing.assert_close(grid.leave(grid.enter(enlarged)), enlarged)
    entered = grid.enter(enlarged)
    assert entered.shape[-2] % TILE == entered.shape[-1] % TILE == 0
    # Both grids cover the same field of view.
    for axis in (0, 1):
        side = grid.shape[axis] * spacing[axis]
        assert grid.size[axis] * grid.spacing[axis] == pytest.approx(side)
        assert grid.size[axis] == 1 or grid.spacing[axis] > FINEST - 1e-3


def test_a_constant_stays_and_the_edge_is_repeated() -> None:
    grid = PixelGrid.of((41, 41), (0.7, 0.7))
    entered = grid.enter(torch.full((1, 41, 41), 0.3))
    torch.testing.assert_close(entered, torch.full_like(entered, 0.3))
    left, _, top, _ = grid.padding
    ragged = grid.enter(noise(1, 41, 41))
    assert torch.equal(ragged[0, 0], ragged[0, top])
    assert torch.equal(ragged[0, :, 0], ragged[0, :, left])


def test_a_scanner_that_fills_the_spectrum_is_undone() -> None:
    measured = noise(1, 32, 32)
    fine = PixelGrid.of((64, 64), (0.75, 0.75))
    enlarged = fine.leave(measured)
    assert enlarged.shape == (1, 64, 64)
    torch.testing.assert_close(fine.enter(enlarged), measured)
