from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from calid.data.augment import augment_intensity, crop, random_pose, seeded

IDENTITY = torch.eye(2, 3)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=Generator().manual_seed(seed))


def smooth(height: int, width: int) -> Tensor:
    """Two slices of waves much longer than a pixel, so that interpolation costs little."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.sin(x / 9 + y / 14), torch.cos(x / 11 - y / 8)])


def centre(x: Tensor, size: int, down: int = 0, right: int = 0) -> Tensor:
    """A square about a pixel so far from the centre."""
    top, left = (x.shape[1] - size) // 2 + down, (x.shape[2] - size) // 2 + right
    return x[:, top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("shape", "size", "pose", "expected"),
    [
        ((40, 48), 32, [[1, 0, 0], [0, 1, 0]], lambda x: x),
        ((32, 32), 32, [[1, 0, 0], [0, 1, 0]], lambda x: x),
        ((37, 51), 17, [[1, 0, 0], [0, 1, 0]], lambda x: x),
        ((40, 40), 32, [[0, -1, 0], [1, 0, 0]], lambda x: x.rot90(1, (1, 2))),
        ((40, 64), 32, [[0, -1, 0], [1, 0, 0]], lambda x: x.rot90(1, (1, 2))),
        ((40, 40), 32, [[-1, 0, 0], [0, -1, 0]], lambda x: x.rot90(2, (1, 2))),
        ((40, 40), 32, [[0, 1, 0], [-1, 0, 0]], lambda x: x.rot90(3, (1, 2))),
        ((32, 32), 32, [[-1, 0, 0], [0, 1, 0]], lambda x: x.flip(2)),
    ],
)
def test_whole_poses_move_whole_pixels(shape, size, pose, expected) -> None:
    x = images(2, *shape)
    posed = crop(x, size, torch.tensor(pose).float())
    torch.testing.assert_close(posed, centre(expected(x), size), rtol=0, atol=1e-4)


def test_a_shift_counts_input_pixels_in_x_and_y() -> None:
    x = images(1, 40, 48)
    pose = torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, -3.0]])
    torch.testing.assert_close(crop(x, 16, pose), centre(x, 16, -3, 5), rtol=0, atol=1e-4)


def test_a_pose_is_about_the_centre_at_the_stated_zoom() -> None:
    x = smooth(64, 64)
    shown = crop(x, 32, torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]))
    # Pixel k of the output lies half a pixel per pixel away from the centre of the input.
    offset = (torch.arange(32) - 15.5) * 0.5 + 31.5
    y, z = torch.meshgrid(offset, offset, indexing="ij")
    torch.testing.assert_close(shown[0], torch.sin(z / 9 + y / 14), rtol=0, atol=3e-3)


def test_beyond_the_edge_the_image_is_mirrored() -> None:
    x = images(1, 20, 20)
    wide = crop(x, 28, IDENTITY)
    torch.testing.assert_close(wide[:, 4:24, 4:24], x, rtol=0, atol=1e-4)
    torch.testing.assert_close(wide[:, 4:24, :4], x[:, :, :4].flip(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(wide[:, 24:, 4:24], x[:, -4:].flip(1), rtol=0, atol=1e-4)


def test_all_slices_go_through_the_same_transform() -> None:
    generator = Generator().manual_seed(3)
    one = images(1, 40, 44)
    stack = torch.cat([one, 0.5 * one, one + 1])
    pose = random_pose(generator, shift=6.0)
    posed = crop(stack, 32, pose)
    torch.testing.assert_close(posed[1], 0.5 * posed[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(posed[2], posed[0] + 1, rtol=0, atol=1e-5)
    torch.testing.assert_close(posed[:1], crop(one, 32, pose), rtol=0, atol=0)


def test_random_poses_are_similarities_within_the_stated_ranges() -> None:
    generator = Generator().manual_seed(0)
    poses = torch.stack([random_pose(generator, shift=7.0, zoom=1.25) for _ in range(400)])
    linear, shift = poses[:, :, :2], poses[:, :, 2]
    determinant = torch.linalg.det(linear)
    scale = determinant.abs().sqrt()
    gram = linear.mT @ linear
    torch.testing.assert_close(gram, scale.square()[:, None, None] * torch.eye(2))
    assert 0.8 - 1e-6 <= float(scale.min()) < 0.82
    assert 1.22 < float(scale.max()) <= 1.25 + 1e-6
    assert float(scale.log().mean()) == pytest.approx(0, abs=0.02)
    assert float((determinant < 0).float().mean()) == pytest.approx(0.5, abs=0.08)
    assert 6.5 < float(shift.abs().max()) <= 7
    angles = torch.atan2(linear[:, 1, 1], -linear[:, 0, 1])
    assert torch.histc(angles, 8, -math.pi, math.pi).min() > 25, "all directions"


def test_poses_are_drawn_on_the_generator() -> None:
    first, again, other = (random_pose(Generator().manual_seed(s), 5.0) for s in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("seed", range(8))
def test_augmented_intensities_stay_in_the_window(seed: int) -> None:
    x = 1.5 * images(3, 24, 20, seed=seed)
    x[0, 0], x[1, 0] = 0.0, 1.5
    out = augment_intensity(x, Generator().manual_seed(seed))
    assert out.shape == x.shape
    assert out.isfinite().all()
    assert 0 <= float(out.min()) <= float(out.max()) <= 1.5


def test_augmentation_is_deterministic_by_its_generator() -> None:
    x = images(2, 24, 24)
    kept = x.clone()
    first, again, other = (augment_intensity(x, Generator().manual_seed(s)) for s in (5, 5, 6))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert float((first - other).abs().mean()) > 0.01
    torch.testing.assert_close(x, kept, rtol=0, atol=0)


def test_augmentation_keeps_the_anatomy_and_changes_the_contrast() -> None:
    ramp = torch.linspace(0.1, 0.9, 32).expand(2, 32, 32)
    means = []
    for seed in range(20):
        out = augment_intensity(ramp, Generator().manual_seed(seed))
        means.append(float(out.mean()))
        assert float(torch.corrcoef(torch.stack([out.flatten(), ramp.flatten()]))[0, 1]) > 0.85
        # One gain, gamma and coil for the stack: slices differ by their noise only.
        assert float((out[0] - out[1]).abs().max()) < 0.15
    assert max(means) - min(means) > 0.15


def test_seeds_depend_on_every_key_and_its_place() -> None:
    keys = [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 1, 0), (0, 0, 2)]
    streams = [tuple(torch.rand(2, generator=seeded(*k)).tolist()) for k in keys]
    assert len(set(streams)) == len(keys)
    assert streams[0] == tuple(torch.rand(2, generator=seeded(0, 0, 1)).tolist())
