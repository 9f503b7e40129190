from __future__ import annotations

import numpy as np
import pytest

from calid.baselines.blend import blend
from calid.baselines.linear import linear

SPACING = (1.4, 1.6)
POSITIONS = np.array([0.0, 10.0, 22.0])


def disc(row: float, column: float) -> np.ndarray:
    rows, columns = np.meshgrid(np.arange(50), np.arange(46), indexing="ij")
    away = np.hypot(rows - row, columns - column)
    return (1 / (1 + np.exp(away - 12))).astype(np.float32)


IMAGES = np.stack([disc(22, 20), disc(25, 24), disc(28, 20)])


def test_slices_that_are_equal_stay_as_they_are() -> None:
    same = np.stack([IMAGES[0]] * 3)
    found = blend(same, POSITIONS, np.array([3.0, 5.0, 17.0]), SPACING)
    assert found.shape == (3, 50, 46)
    np.testing.assert_allclose(found, np.stack([IMAGES[0]] * 3), atol=1e-3)


@pytest.mark.parametrize("position", [10.001, 9.999])
def test_next_to_an_acquired_slice_it_is_that_slice(position: float) -> None:
    found = blend(IMAGES, POSITIONS, np.array([position]), SPACING)
    np.testing.assert_allclose(found[0], IMAGES[1], atol=0.01)


def test_what_moves_is_met_on_its_way() -> None:
    targets = np.array([5.0, 16.0])
    truth = np.stack([disc(23.5, 22), disc(26.5, 22)])
    ours, theirs = (
        np.abs(method(IMAGES, POSITIONS, targets, SPACING) - truth).mean()
        for method in (blend, linear)
    )
    assert ours < 0.5 * theirs
