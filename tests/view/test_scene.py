"""Panels, and how they are turned on the page."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from calid.errors import GeometryError
from calid.view.scene import (
    DisplayFrame,
    Marks,
    as_stack,
    comparison,
    comparison_scene,
    letters,
    lone_panel,
)

FACTOR = 5
UNKNOWN = Marks("unknown", np.empty(0))
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
def test_the_page_is_turned_never_mirrored_and_left_is_right(affine):
    frame = DisplayFrame.of(affine, SHAPE)
    np.testing.assert_allclose(frame.axes @ frame.axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame.axes) == pytest.approx(1)
    turned = frame.turn(affine)
    assert np.linalg.det(turned) == pytest.approx(np.linalg.det(affine))
    # Slices lie in the plane of the page.
    assert abs(turned[2, 2]) == pytest.approx(np.linalg.norm(turned[:3, 2]))
    directions = frame.directions()
    assert directions["right"][0] in ("L", "P")
    assert directions["up"][0] in ("A", "H")
    middle = np.array([(50 - 1) / 2, (40 - 1) / 2, (6 - 1) / 2, 1])
    np.testing.assert_allclose(turned @ middle, [0, 0, 0, 1], atol=1e-9)


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


def test_the_three_panels_share_grid_window_and_marks(stack, volume):
    scene = comparison_scene(stack, volume)
    assert [panel.title for panel in scene.panels] == ["As acquired", "Linear", "CaLID"]
    origins = [panel.marks.origin for panel in scene.panels]
    assert origins == ["acquired", "interpolated", "generated"]
    first = scene.panels[0]
    for panel in scene.panels:
        np.testing.assert_allclose(panel.image.affine, first.image.affine)
        assert len(panel.image.slices) == volume.data.shape[1]
        assert panel.image.window == first.image.window
        np.testing.assert_array_equal(panel.marks.acquired, np.arange(4) * FACTOR)


def test_acquired_slices_are_shown_as_slabs_that_meet_half_way(stack, volume):
    image = comparison_scene(stack, volume).panels[0].image
    np.testing.assert_array_equal(image.slices, [0] * 3 + [1] * 5 + [2] * 5 + [3] * 3)
    np.testing.assert_array_equal(image.data, stack.data)


def test_linear_is_linear_and_keeps_acquired_slices(stack, volume):
    image = comparison_scene(stack, volume).panels[1].image
    np.testing.assert_array_equal(image.data[:, ::FACTOR], stack.data)
    expected = stack.data[:, 0] + (stack.data[:, 1].astype(float) - stack.data[:, 0]) * 2 / FACTOR
    np.testing.assert_allclose(image.data[:, 2], expected, atol=1)


@pytest.mark.parametrize("damage", ["slices", "frames", "place"])
def test_a_volume_of_another_stack_is_refused(damage, stack, volume):
    volume = as_stack(volume)
    if damage == "slices":
        kept = slice(0, 15)
        volume = replace(volume, data=volume.data[:, kept], positions=volume.positions[kept])
    elif damage == "frames":
        volume = replace(volume, data=volume.data[:1], frame_times=volume.frame_times[:1])
    else:
        shift = np.zeros((4, 4))
        shift[0, 3] = 7.0
        volume = replace(volume, affine=volume.affine + shift)
    with pytest.raises(GeometryError):
        comparison(stack, volume, UNKNOWN)


def test_thick_slices_alone_are_as_thick_as_they_are(stack):
    # 10 mm thick, pixels of 2 mm
    panel = lone_panel("stack", stack, Marks("unknown", np.array([0.0, 2.0])))
    np.testing.assert_array_equal(panel.image.slices, np.repeat(np.arange(4), 5))
    np.testing.assert_allclose(panel.image.affine[:3, 2], stack.affine[:3, 2] / 5)
    # The middle of the five is where the slice is.
    np.testing.assert_allclose(
        panel.image.affine @ [0, 0, 2, 1], stack.affine @ [0, 0, 0, 1], atol=1e-9
    )
    np.testing.assert_array_equal(panel.marks.acquired, [2.0, 12.0])
    assert panel.marks.thick == 5


def test_overlays_are_on_the_grid_of_their_image(volume):
    spread = replace(as_stack(volume), data=volume.uncertainty)
    labels = np.ones(volume.data.shape, np.uint8)
    panel = lone_panel("CaLID", volume, UNKNOWN, (spread, labels))
    for layer in (panel.uncertainty, panel.labels):
        np.testing.assert_array_equal(layer.slices, panel.image.slices)
        np.testing.assert_allclose(layer.affine, panel.image.affine)
    assert panel.labels.labels
    assert not panel.uncertainty.labels
    low, high = panel.uncertainty.window
    assert 0 < low < high <= volume.uncertainty.max() * 1.001
