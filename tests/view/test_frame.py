from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from calid.view.scene import DisplayFrame, letters

SHAPE = (1, 6, 40, 50)


def storages() -> list[np.ndarray]:
    """One stack, stored in every order and direction of its axes."""
    steps = np.diag([1.5, 2.0, 8.0])
    return [
        np.vstack([np.column_stack([steps[:, order] * signs, [3.0, -4.0, 5.0]]), [0, 0, 0, 1]])
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]


@pytest.mark.parametrize("affine", storages())
def test_the_page_is_turned_and_never_mirrored(affine):
    frame = DisplayFrame.of(affine, SHAPE)
    np.testing.assert_allclose(frame.axes @ frame.axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame.axes) == pytest.approx(1)
    turned = frame.turn(affine)
    np.testing.assert_allclose(abs(np.linalg.det(turned)), abs(np.linalg.det(affine)))
    assert np.sign(np.linalg.det(turned)) == np.sign(np.linalg.det(affine))


@pytest.mark.parametrize("affine", storages())
def test_slices_lie_in_the_plane_of_the_page_and_left_is_right(affine):
    frame = DisplayFrame.of(affine, SHAPE)
    slice_step = frame.turn(affine)[:3, 2]
    assert abs(slice_step[2]) == pytest.approx(np.linalg.norm(slice_step))
    directions = frame.directions()
    assert directions["right"][0] in ("L", "P")
    assert directions["up"][0] in ("A", "H")


def test_the_middle_of_the_volume_is_the_origin():
    affine = storages()[5]
    middle = np.array([(50 - 1) / 2, (40 - 1) / 2, (6 - 1) / 2, 1])
    np.testing.assert_allclose(
        DisplayFrame.of(affine, SHAPE).turn(affine) @ middle, [0, 0, 0, 1], atol=1e-9
    )


def test_an_oblique_short_axis_stack_is_shown_in_its_own_plane():
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zyx", [35, 40, -20], degrees=True).as_matrix() @ np.diag(
        [-1.4, -1.4, 8.0]
    )
    turned = DisplayFrame.of(affine, SHAPE).turn(affine)
    np.testing.assert_allclose(abs(turned[:3, 2]), [0, 0, 8.0], atol=1e-9)
    # Rows and columns go along the edges of the page, in one order or the other.
    np.testing.assert_allclose(
        np.sort(abs(turned[:2, :2]), axis=0), [[0, 0], [1.4, 1.4]], atol=1e-9
    )


@pytest.mark.parametrize(
    ("direction", "expected"),
    [((-1, 0, 0), "L"), ((0, 0.2, -0.98), "F"), ((-0.8, -0.6, 0), "LP"), ((0, 0.6, 0.8), "HA")],
)
def test_letters_name_the_patient_and_the_largest_share_first(direction, expected):
    assert letters(np.array(direction, float)) == expected
