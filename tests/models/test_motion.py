"""Motion between two slices: recovered on textures that move as known, and its symmetries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from calid.models import motion as motion_module
from calid.models.motion import (
    GAP_UNIT,
    Frames,
    box_means,
    enlarge,
    refined_motion,
    through_plane_motion,
    warp,
)
from calid.runtime import computing

SIDE = 96
INNER, FINE_INNER = slice(8, -8), slice(16, -16)  # away from the border, on the two grids
PLACES = [(-5.0, 5.0), (-2.0, 8.0), (-9.0, 1.0), (-6.0, 3.0)]


def texture(x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    """A smooth function of the plane, in window units; waves of 10 to 24 pixels."""
    generator = torch.Generator().manual_seed(seed)
    length, angle, phase = torch.rand(3, 24, generator=generator).unbind()
    angle, phase = 2 * math.pi * angle, 2 * math.pi * phase
    along = x[..., None] * angle.cos() + y[..., None] * angle.sin()
    waves = torch.cos(2 * math.pi * along / (10 + 14 * length) + phase).sum(-1) / 24**0.5
    return 0.6 + 0.35 * torch.tanh(waves)


def seen_from(velocity: tuple[float, float], distance: float, seed: int = 0) -> Tensor:
    """The slice at a distance from the target.

    The target shows at p what the slice shows at p + distance / GAP_UNIT * velocity; velocity
    counts pixels of the motion's grid, which are two of the image.
    """
    rows, columns = torch.meshgrid(*[torch.arange(float(SIDE))] * 2, indexing="ij")
    x, y = (2 * distance / GAP_UNIT * v for v in velocity)
    return texture(columns - x, rows - y, seed)[None, None]


def found(below: Tensor, above: Tensor, low: float, high: float) -> Tensor:
    """The motion of one target, ``(2, h, w)``."""
    return through_plane_motion(below, above, torch.tensor([low]), torch.tensor([high]))[0]


def errors(motion: Tensor, velocity: tuple[float, float]) -> Tensor:
    """Length of the error at every inner pixel."""
    difference = motion - torch.tensor(velocity)[:, None, None]
    return difference[:, INNER, INNER].norm(dim=0)


def rms(x: Tensor) -> float:
    return float(x[..., FINE_INNER, FINE_INNER].square().mean().sqrt())


@pytest.mark.parametrize(("low", "high"), PLACES)
@pytest.mark.parametrize("velocity", [(1.0, -0.5), (-0.6, -1.0)])
def test_a_known_translation_is_found_wherever_in_the_gap_the_target_lies(
    velocity: tuple[float, float], low: float, high: float
) -> None:
    motion = found(seen_from(velocity, low), seen_from(velocity, high), low, high)
    assert motion.shape == (2, SIDE // 2, SIDE // 2)
    error = errors(motion, velocity)
    assert float(error.mean()) < 0.25
    assert float(error.max()) < 0.4
    assert math.hypot(*velocity) > 1, "no motion at all would not pass"


@pytest.mark.parametrize(("low", "high"), PLACES)
@pytest.mark.parametrize("velocity", [(1.0, -0.5), (-3.0, 2.0)])
def test_without_damping_large_translations_are_found_too(
    velocity: tuple[float, float], low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Damping draws the estimate towards no motion: without, what is left is the method's error.
    monkeypatch.setattr(motion_module, "DAMPING", 0.002)
    motion = found(seen_from(velocity, low), seen_from(velocity, high), low, high)
    assert float(errors(motion, velocity).max()) < 0.15


@pytest.mark.parametrize("distances", PLACES)
@pytest.mark.parametrize("velocity", [(1.0, -0.5), (-3.0, 2.0)])
def test_slices_that_were_warped_to_the_target_agree_with_each_other_and_with_it(
    velocity: tuple[float, float], distances: tuple[float, float]
) -> None:
    pair = [seen_from(velocity, d) for d in distances]
    fine = enlarge(found(pair[0], pair[1], *distances)[None], 2)
    arrived = [warp(x, d / GAP_UNIT * fine) for x, d in zip(pair, distances, strict=True)]
    assert rms(arrived[1] - arrived[0]) < 0.25 * rms(pair[1] - pair[0])
    truth = seen_from(velocity, 0.0)
    for before, after in zip(pair, arrived, strict=True):
        assert rms(after - truth) < 0.3 * rms(before - truth)


@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.0, 1.0)])
def test_the_first_component_of_the_motion_is_along_columns(
    direction: tuple[float, float],
) -> None:
    motion = found(seen_from(direction, -5.0), seen_from(direction, 5.0), -5.0, 5.0)
    mean = motion[:, INNER, INNER].mean((1, 2))
    along, across = (mean[0], mean[1]) if direction[0] else (mean[1], mean[0])
    assert float(along) > 0.7
    assert abs(float(across)) < 0.1


def two_slices() -> tuple[Tensor, Tensor]:
    """Two slices that are related by no translation."""
    rows, columns = torch.meshgrid(*[torch.arange(float(SIDE))] * 2, indexing="ij")
    above = texture(1.02 * columns - 0.03 * rows, 0.98 * rows + 1.0)
    return texture(columns, rows)[None, None], above[None, None] * 0.95


def test_turning_the_stack_upside_down_negates_the_motion() -> None:
    # Slices at d are then at -d, and d times the motion is where they lie.
    below, above = two_slices()
    motion = found(below, above, -3.0, 7.0)
    assert float(motion.abs().mean()) > 0.1
    torch.testing.assert_close(found(above, below, -7.0, 3.0), -motion, rtol=1e-3, atol=1e-4)


def test_the_two_slices_play_the_same_role() -> None:
    below, above = two_slices()
    motion = found(below, above, -3.0, 7.0)
    torch.testing.assert_close(found(above, below, 7.0, -3.0), motion, rtol=1e-3, atol=1e-4)


def test_the_same_gap_stretched_is_a_slower_motion() -> None:
    below, above = two_slices()
    motion = found(below, above, -3.0, 7.0)
    torch.testing.assert_close(found(below, above, -6.0, 14.0), motion / 2, rtol=1e-3, atol=1e-4)


def test_mirrored_and_transposed_slices_have_mirrored_and_transposed_motion() -> None:
    below, above = two_slices()
    motion = found(below, above, -3.0, 7.0)
    flipped = found(below.flip(-1), above.flip(-1), -3.0, 7.0).flip(-1)
    flipped = flipped * torch.tensor([-1.0, 1.0])[:, None, None]
    torch.testing.assert_close(flipped, motion, rtol=1e-3, atol=1e-3)
    turned = found(below.mT, above.mT, -3.0, 7.0).mT.flip(0)
    torch.testing.assert_close(turned, motion, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("low", "high"), PLACES)
def test_identical_slices_do_not_move(low: float, high: float) -> None:
    image = texture(*torch.meshgrid(*[torch.arange(float(SIDE))] * 2, indexing="xy"))[None, None]
    motion = found(image, image, low, high)
    torch.testing.assert_close(motion, torch.zeros_like(motion), rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [(0.0, 0.0), (0.7, 0.7), (0.2, 1.1)])
def test_flat_slices_do_not_move(levels: tuple[float, float]) -> None:
    below, above = (torch.full((1, 1, 32, 40), level) for level in levels)
    motion = found(below, above, -4.0, 6.0)
    assert motion.shape == (2, 16, 20)
    assert torch.equal(motion, torch.zeros_like(motion))


def test_flat_ground_around_a_moving_disc_stays_finite_and_small() -> None:
    rows, columns = torch.meshgrid(*[torch.arange(float(SIDE))] * 2, indexing="ij")

    def disc(x: float) -> Tensor:
        return torch.sigmoid((12 - torch.hypot(columns - x, rows - 48)) / 2)[None, None]

    motion = found(disc(46.0), disc(50.0), -5.0, 5.0)
    assert motion.isfinite().all()
    assert float(motion[0, 24, 18:31].mean()) > 1, "the disc moves by 2 pixels of this grid"
    assert float(motion[:, :6, :6].abs().max()) < 0.1


@pytest.mark.parametrize("on_below", [True, False])
def test_on_a_slice_that_slice_stays_and_the_other_comes_to_it(on_below: bool) -> None:
    velocity = (1.0, -0.5)
    low, high = (0.0, 10.0) if on_below else (-10.0, 0.0)
    pair = {d: seen_from(velocity, d) for d in (low, high)}
    motion = found(pair[low], pair[high], low, high)
    assert float(errors(motion, velocity).mean()) < 0.25
    fine, own = enlarge(motion[None], 2), pair[0.0]
    torch.testing.assert_close(warp(own, 0.0 * fine), own, rtol=0, atol=1e-4)
    far = low + high
    assert rms(warp(pair[far], far / GAP_UNIT * fine) - own) < 0.3 * rms(pair[far] - own)


def test_a_target_on_both_slices_has_no_motion() -> None:
    # Where there is no distance nothing is known, and nothing is needed.
    below, above = two_slices()
    assert torch.equal(found(below, above, 0.0, 0.0), torch.zeros(2, SIDE // 2, SIDE // 2))


def test_targets_of_a_batch_are_independent() -> None:
    kinds = [((1.0, -0.5), -5.0, 5.0, 0), ((-2.0, 1.0), -2.0, 8.0, 1), ((0.0, 0.0), -9.0, 1.0, 2)]
    below = [seen_from(v, low, seed) for v, low, _, seed in kinds]
    above = [10 ** (seed - 1) * seen_from(v, high, seed) for v, _, high, seed in kinds]
    low, high = (torch.tensor([kind[k] for kind in kinds]) for k in (1, 2))
    together = through_plane_motion(torch.cat(below), torch.cat(above), low, high)
    for k, motion in enumerate(together):
        alone = found(below[k], above[k], float(low[k]), float(high[k]))
        torch.testing.assert_close(motion, alone, rtol=1e-3, atol=1e-4)
    assert float((together[0] - together[1]).abs().mean()) > 0.5


def test_motion_asks_for_no_gradients() -> None:
    below, above = (x.requires_grad_() for x in two_slices())
    assert not found(below, above, -5.0, 5.0).requires_grad


def test_warping_by_whole_pixels_shifts_and_extends_the_border() -> None:
    x = torch.rand(1, 2, 12, 20, generator=torch.Generator().manual_seed(0))
    displacement = torch.tensor([3.0, -2.0])[None, :, None, None].expand(1, 2, 12, 20)
    moved = warp(x, displacement)  # (x, y) shows (x + 3, y - 2)
    torch.testing.assert_close(moved[..., 2:, :-3], x[..., :-2, 3:], rtol=0, atol=1e-4)
    border = x[..., :-2, -1:].expand(-1, -1, -1, 3)
    torch.testing.assert_close(moved[..., 2:, -3:], border, rtol=0, atol=1e-4)


def test_warping_reads_the_displacement_of_each_pixel() -> None:
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    plane = (2 * columns - 3 * rows)[None, None]
    displacement = torch.rand(1, 2, 16, 24, generator=torch.Generator().manual_seed(0)) - 0.5
    moved = warp(plane, displacement)
    expected = plane + 2 * displacement[:, :1] - 3 * displacement[:, 1:]
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(moved[inner], expected[inner], rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 4])
def test_an_enlarged_displacement_moves_the_enlarged_image_alike(scale: int) -> None:
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(10.0), indexing="ij")
    fine = enlarge(torch.stack([0.1 * columns, 0.2 * rows - 1])[None], scale)
    assert fine.shape == (1, 2, 8 * scale, 10 * scale)
    # Centres of fine pixels, in coarse ones; lengths grow with the grid.
    x, y = ((torch.arange(n * scale) + 0.5) / scale - 0.5 for n in (10, 8))
    inner = slice(scale, -scale)
    expected = (scale * 0.1 * x[inner]).expand(8 * scale, -1)
    torch.testing.assert_close(fine[0, 0, :, inner], expected)
    expected = (scale * (0.2 * y[inner] - 1))[:, None].expand(-1, 10 * scale)
    torch.testing.assert_close(fine[0, 1, inner], expected)


def film(seed: int, frames: int, noise: float) -> tuple[Tensor, Tensor]:
    """A pair of slices, four pixels apart in x, in every frame with other noise."""
    generator = torch.Generator().manual_seed(seed)
    still = blurred(torch.rand(1, 1, 64, 64, generator=generator))
    pair = still, still.roll(4, 3)
    noises = (torch.randn(frames, 1, 64, 64, generator=generator) for _ in pair)
    return tuple((x + noise * n).clamp(min=0) for x, n in zip(pair, noises, strict=True))  # type: ignore[return-value]


def blurred(x: Tensor) -> Tensor:
    for _ in range(3):
        x = torch.nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    return (x - x.amin()) / (x.amax() - x.amin())


def test_frames_of_a_film_steady_each_other() -> None:
    below, above = film(0, 12, noise=0.3)
    near = torch.full((12,), -5.0), torch.full((12,), 5.0)
    alone = through_plane_motion(below, above, *near)
    together = through_plane_motion(below, above, *near, Frames(12))
    jumps = [float((m.roll(-1, 0) - m).abs().mean()) for m in (alone, together)]
    assert jumps[1] < 0.5 * jumps[0]
    assert float(together.mean()) == pytest.approx(float(alone.mean()), rel=0.1)


def test_motion_of_a_film_does_not_depend_on_its_first_frame() -> None:
    below, above = film(1, 8, noise=0.2)
    near = torch.full((8,), -5.0), torch.full((8,), 5.0)
    motion = through_plane_motion(below, above, *near, Frames(8))
    rolled = through_plane_motion(below.roll(3, 0), above.roll(3, 0), *near, Frames(8))
    torch.testing.assert_close(rolled, motion.roll(3, 0), rtol=1e-4, atol=1e-4)


def test_targets_of_a_film_do_not_mix() -> None:
    (low, high), (other, above) = film(2, 6, noise=0.1), film(3, 6, noise=0.1)
    both = torch.stack([low, other], 1).flatten(0, 1), torch.stack([high, above], 1).flatten(0, 1)
    near = torch.full((12,), -5.0), torch.full((12,), 5.0)
    together = through_plane_motion(*both, *near, Frames(6)).unflatten(0, (6, 2))
    alone = through_plane_motion(low, high, near[0][:6], near[1][:6], Frames(6))
    torch.testing.assert_close(together[:, 0], alone, rtol=1e-4, atol=1e-4)


def test_the_first_frame_follows_the_last_unless_the_film_is_no_whole_beat() -> None:
    beat, piece = Frames(10).nearness(0.1), Frames(10, periodic=False).nearness(0.1)
    torch.testing.assert_close(beat, beat.roll((3, 3), (0, 1)))
    assert piece[0, 9] < 1e-6 < beat[0, 9]
    torch.testing.assert_close(piece.sum(1), torch.ones(10))


def test_films_are_registered_in_single_precision_under_autocast() -> None:
    below, above = film(4, 6, noise=0.2)
    near = torch.full((6,), -5.0), torch.full((6,), 5.0)
    expected = through_plane_motion(below, above, *near, Frames(6))
    with computing(torch.device("cpu"), torch.bfloat16):
        found = through_plane_motion(below, above, *near, Frames(6))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_motion_that_half_the_resolution_does_not_see_is_found_by_refining_it() -> None:
    """Squeezed and stretched every 24 pixels, as small structures are."""
    rows, columns = torch.meshgrid(*[torch.arange(float(SIDE))] * 2, indexing="ij")
    true = torch.stack([1.5 * torch.sin(2 * math.pi * columns / 24), torch.zeros(SIDE, SIDE)])
    target = texture(columns, rows)[None, None]
    low, high = torch.tensor([-5.0]), torch.tensor([5.0])

    def shown(distance: Tensor) -> Tensor:
        # To first order what the target shows at p lies at p + distance / GAP_UNIT * motion.
        return warp(target, -(distance / GAP_UNIT) * true[None])

    below, above = shown(low), shown(high)
    coarse = through_plane_motion(below, above, low, high)
    fine = refined_motion(below, above, coarse, low, high)
    assert fine.shape == (1, 2, SIDE, SIDE)
    before, after = rms(enlarge(coarse, 2) - true), rms(fine - true)
    assert after < 0.8 * before


def test_refining_keeps_the_symmetry_of_below_and_above() -> None:
    low, high = torch.tensor([-3.0]), torch.tensor([7.0])
    below, above = (seen_from((0.8, -0.4), float(d)) for d in (low, high))
    coarse = through_plane_motion(below, above, low, high)
    one = refined_motion(below, above, coarse, low, high)
    other = refined_motion(above, below, -coarse, -high, -low)
    torch.testing.assert_close(one, -other, rtol=0, atol=1e-3)
    assert float(one.abs().mean()) > 0.5


def test_refining_keeps_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion_module, "DAMPING", 0.002)
    velocity = (0.5, 0.25)
    low, high = torch.tensor([-5.0]), torch.tensor([5.0])
    below, above = (seen_from(velocity, float(d)) for d in (low, high))
    exact = torch.tensor(velocity)[None, :, None, None].expand(1, 2, SIDE // 2, SIDE // 2)
    fine = refined_motion(below, above, exact, low, high)
    assert rms(fine - enlarge(exact, 2)) < 0.03


def test_box_means_are_of_what_lies_inside_of_the_image() -> None:
    images = torch.rand(2, 3, 17, 12, generator=torch.Generator().manual_seed(0))
    expected = functional.avg_pool2d(images, 5, 1, padding=2, count_include_pad=False)
    torch.testing.assert_close(box_means(images, 2), expected)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_film_that_jumps_at_its_end_is_no_whole_heartbeat(share: float) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 3, 16, 16))
    phase = np.arange(round(12 * share)) / 12
    swing = np.cos(2 * np.pi * phase)[:, None, None, None]
    film = 1000 * (2 + first + swing * second) + rng.random((len(phase), 3, 16, 16))
    for stored in (film, film.astype(np.uint16), -film):
        assert Frames.of(stored) == Frames(len(phase), periodic=share == 1)


def test_a_film_that_stands_still_is_whole() -> None:
    assert Frames.of(np.ones((5, 3, 16, 16))) == Frames(5)
    assert Frames.of(np.ones((1, 3, 16, 16))) == Frames(1)
