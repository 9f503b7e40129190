"""The way to the interpolator's grid and back, and boxes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calid.geometry.pixels import BORDER, FADE, FINEST, TILE, PixelGrid, Region


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


def marked(shape: tuple[int, int], rows: slice, columns: slice) -> NDArray[np.bool_]:
    mask = np.zeros(shape, np.bool_)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize(("top", "left"), [(70, 90), (0, 0), (100, 150), (3, 61)])
def test_the_box_holds_the_heart_and_its_margin_where_there_is_room(top: int, left: int) -> None:
    mask = marked((128, 192), slice(top, top + 20), slice(left, left + 30))
    region = Region.around(mask, margin=6)
    assert region is not None
    for (first, last), size, (low, high) in zip(
        (region.rows, region.columns), mask.shape, ((top, top + 20), (left, left + 30)), strict=True
    ):
        assert (last - first) % 16 == 0
        assert 0 <= first <= max(0, low - 6 - BORDER - FADE)
        assert min(size, high + 6 + BORDER + FADE) <= last <= size
    assert region.share == pytest.approx(np.ptp(region.rows) * np.ptp(region.columns) / (128 * 192))
    # All that the margin holds is the networks' alone.
    whole = region.place(
        torch.ones(np.ptp(region.rows), np.ptp(region.columns)), torch.zeros(128, 192)
    )
    assert (whole[max(0, top - 6) : top + 26, max(0, left - 6) : left + 36] == 1).all()


def test_a_heart_that_fills_the_field_takes_all_of_it() -> None:
    region = Region.around(np.ones((48, 64), np.bool_), margin=5)
    assert region == Region((0, 48), (0, 64), (48, 64))
    part = torch.rand(2, 48, 64)
    assert torch.equal(region.place(part, torch.zeros(2, 48, 64)), part)


def test_no_heart_has_no_box() -> None:
    assert Region.around(np.zeros((32, 32), np.bool_), margin=5) is None


REGION = Region((16, 64), (0, 48), (96, 80))


def test_the_box_is_cut_out_of_maps_of_the_grid() -> None:
    whole = torch.arange(96 * 80).view(1, 96, 80)
    assert torch.equal(REGION.cut(whole), whole[:, 16:64, :48])


def test_a_part_fades_out_towards_its_sides_but_not_at_the_end_of_the_grid() -> None:
    whole = torch.zeros(2, 1, 96, 80)
    found = REGION.place(torch.ones(2, 1, 48, 48), whole)[0, 0]
    assert (whole == 0).all()  # was not written into
    assert (found[:16] == 0).all()
    assert (found[64:] == 0).all()
    assert (found[:, 48:] == 0).all()
    middle = 16 + BORDER + FADE
    inside = found[middle : 64 - BORDER - FADE, : 48 - BORDER - FADE]
    assert (inside == 1).all()
    down = found[:, 0]  # at the left end of the grid there is no side
    assert (down[16 : 16 + BORDER] == 0).all()
    steps = down[16 : middle + 1].diff()
    assert (steps >= 0).all()
    assert steps.max() < 2 / FADE  # no seam
    torch.testing.assert_close(down, down.flip(0).roll(-16))


@pytest.mark.parametrize("spacing", [(1.5, 1.5), (0.75, 1.0), (0.5, 0.6)])
def test_voxels_of_the_box_are_those_that_lie_in_it(spacing: tuple[float, float]) -> None:
    shape = 150, 131
    grid = PixelGrid.of(shape, spacing)
    size = grid.enter(torch.zeros(1, *shape)).shape[1:]
    mask = marked((size[0], size[1]), slice(30, 50), slice(34, 50))
    region = Region.around(mask, margin=0)
    assert region is not None
    inside = torch.zeros(1, *size)
    region.cut(inside)[:] = 1
    told = torch.zeros(1, *shape)
    (top, bottom), (left, right) = region.native(grid)
    told[:, top:bottom, left:right] = 1
    wrong = (grid.leave(inside) > 0.5) != (told > 0.5)
    edge = 2 * (bottom - top + right - left)
    assert wrong.sum() <= edge  # a voxel at the rim, at most
    assert told.sum() > edge
    assert 0 <= top < bottom <= shape[0]
    assert 0 <= left < right <= shape[1]
