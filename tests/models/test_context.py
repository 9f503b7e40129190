"""Which slices a target sees, how far it is from them, and how they are brought to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from calid.models.context import Acquired, Context, Registered, nearest_context, register
from calid.models.motion import enlarge, through_plane_motion, warp

HEIGHT, WIDTH, SLICES = 48, 64, 5


def context(
    index: Sequence[int], distance: Sequence[float], mask: Sequence[bool] | None = None
) -> Context:
    """Of one target."""
    return Context(
        torch.tensor([index]),
        torch.tensor([distance]),
        torch.tensor([[True] * len(index) if mask is None else mask]),
    )


def gate(*distance: float) -> float:
    return float(context(range(len(distance)), distance).gate[0])


def test_the_gate_is_closed_on_a_slice_and_opens_away_from_it() -> None:
    assert gate(0.0, 10.0) == 0
    assert gate(-10.0, 0.0) == 0
    openings = [gate(-a, 10.0 - a) for a in (0.001, 0.1, 1.0, 3.0, 5.0)]
    assert openings == sorted(openings)
    assert openings[0] < 1e-3
    assert openings[-1] == pytest.approx(5 / np.hypot(5, 5))


def test_the_gate_is_symmetric() -> None:
    for a, b in ((2.0, 8.0), (1.0, 30.0)):
        assert gate(-a, b) == pytest.approx(gate(-b, a))
        assert gate(-a, b) == pytest.approx(gate(b, -a))


def test_the_gate_grows_with_the_gap_towards_one() -> None:
    openings = [gate(-width / 2, width / 2) for width in (2.0, 6.0, 10.0, 20.0, 40.0, 1000.0)]
    assert openings == sorted(openings)
    assert len(set(openings)) == len(openings)
    assert openings[-1] == pytest.approx(1, abs=1e-3)


def test_the_gate_looks_at_the_nearest_slices_that_are_there() -> None:
    assert gate(-14.0, -4.0, 6.0, 16.0) == pytest.approx(gate(-4.0, 6.0))
    masked = context([0, 1, 2], [-4.0, 0.0, 6.0], [True, False, True]).gate
    assert float(masked[0]) == pytest.approx(gate(-4.0, 6.0))


def test_the_context_is_the_two_nearest_slices_on_either_side() -> None:
    positions = np.array([0.0, 8.0, 20.0, 30.0, 41.0, 50.0])  # unequal gaps
    where = nearest_context(positions, np.array([22.0, 29.0]))
    assert where.index.tolist() == [[1, 2, 3, 4]] * 2
    assert where.distance.tolist() == [[-14, -2, 8, 19], [-21, -9, 1, 12]]
    assert where.mask.all()


def test_base_and_apex_have_fewer_slices_and_say_so() -> None:
    positions = np.array([0.0, 10.0, 20.0])
    base, apex = (nearest_context(positions, np.array([t])) for t in (4.0, 13.0))
    assert base.mask.tolist() == [[False, True, True, True]]
    assert apex.mask.tolist() == [[True, True, True, False]]
    assert base.distance.tolist() == [[0.0, -4.0, 6.0, 16.0]]
    assert apex.distance.tolist() == [[-13.0, -3.0, 7.0, 0.0]]
    for where in (base, apex):
        assert 0 <= int(where.index.min()) <= int(where.index.max()) < 3


def test_two_slices_are_context_enough() -> None:
    where = nearest_context(np.array([0.0, 9.0]), np.array([3.0]))
    assert where.mask.tolist() == [[False, True, True, False]]
    wide = nearest_context(np.arange(9.0), np.array([4.5]), per_side=3)
    assert wide.index.tolist() == [[2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("target", [-0.1, 0.0, 20.0, 20.1, 100.0])
def test_a_target_outside_the_stack_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="outside the stack"):
        nearest_context(np.array([0.0, 10.0, 20.0]), np.array([5.0, target]))


def test_contexts_are_concatenated_in_order() -> None:
    parts = [context([0, 1], [-3.0, 7.0]), context([2, 3], [-4.0, 0.0], [True, False])]
    both = Context.concatenate(parts)
    assert both.index.tolist() == [[0, 1], [2, 3]]
    assert both.distance.tolist() == [[-3.0, 7.0], [-4.0, 0.0]]
    assert both.mask.tolist() == [[True, True], [True, False]]


def test_the_nearest_slice_on_either_side_is_found_in_any_order() -> None:
    distance = [-14.0, -4.0, 6.0, 16.0]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        below, above = context(order, [distance[i] for i in order]).nearest()
        assert (below.tolist(), above.tolist()) == ([[order.index(1)]], [[order.index(2)]])


@pytest.mark.parametrize("pretended", [0.0, -1.0, 1.0])
def test_a_masked_member_is_never_the_nearest(pretended: float) -> None:
    # Whatever its distance claims: by rule it is 0, which would be nearest of all.
    where = context([0, 1, 2, 3], [pretended, -24.0, 36.0, pretended], [False, True, True, False])
    below, above = where.nearest()
    assert (below.tolist(), above.tolist()) == ([[1]], [[2]])


def test_every_target_has_its_own_nearest_slices() -> None:
    where = nearest_context(np.array([0.0, 10.0, 20.0]), np.array([4.0, 13.0]))
    below, above = where.nearest()
    assert where.index.gather(1, below).tolist() == [[0], [1]]
    assert where.index.gather(1, above).tolist() == [[1], [2]]


def encode(images: Tensor) -> Tensor:
    """In place of an autoencoder: three of the sixteen pixels that make one of the latent."""
    return 3 * F.pixel_unshuffle(images, 4)[:, [0, 6, 11]] - 1


def slices() -> Tensor:
    """Smooth images, each unlike the others but moving steadily."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(SLICES, 1, HEIGHT // 8, WIDTH // 8, generator=generator)
    shared = torch.rand(1, 1, HEIGHT // 8, WIDTH // 8, generator=generator)
    fine = F.interpolate(0.3 * coarse + shared, scale_factor=8.0, mode="bicubic").clamp(min=0)
    return torch.cat([image.roll(2 * k, -1) for k, image in enumerate(fine.split(1))])


def two_targets() -> Context:
    """At the base and within; with different slices below and above."""
    return Context.concatenate(
        [
            context([0, 0, 1, 2], [0.0, -4.0, 6.0, 16.0], [False, True, True, True]),
            context([1, 2, 3, 4], [-13.0, -3.0, 7.0, 17.0]),
        ]
    )


def registered() -> tuple[Acquired, Context, Registered]:
    acquired, where = Acquired.of(slices(), encode), two_targets()
    return acquired, where, register(acquired, where)


def motion_of(images: Tensor, nearest: tuple[tuple[int, int], ...]) -> Tensor:
    """Of `two_targets`, found anew."""
    below, above = (images[[pair[side] for pair in nearest]] for side in (0, 1))
    return through_plane_motion(below, above, torch.tensor([-4.0, -3.0]), torch.tensor([6.0, 7.0]))


NEAREST = ((0, 1), (2, 3))


def test_acquired_slices_are_encoded_once_and_keep_their_encoder() -> None:
    asked: list[Tensor] = []

    def noted(images: Tensor) -> Tensor:
        asked.append(images)
        return encode(images)

    images = slices()
    acquired = Acquired.of(images, noted)
    assert len(asked) == 1
    assert asked[0] is images
    assert acquired.images is images
    assert acquired.encode is noted
    torch.testing.assert_close(acquired.latents, encode(images), rtol=0, atol=0)


def test_registering_adds_two_members_to_every_context() -> None:
    acquired, where, seen = registered()
    assert seen.images.shape == (SLICES + 4, 1, HEIGHT, WIDTH)
    assert seen.latents.shape == (SLICES + 4, 3, HEIGHT // 4, WIDTH // 4)
    assert seen.displacement.shape == (2, 6, 2, HEIGHT // 4, WIDTH // 4)
    assert seen.moved.tolist() == [False] * 4 + [True] * 2
    torch.testing.assert_close(seen.images[:SLICES], acquired.images, rtol=0, atol=0)
    torch.testing.assert_close(seen.latents[:SLICES], acquired.latents, rtol=0, atol=0)
    for name in ("index", "distance", "mask"):
        kept = getattr(seen.context, name)[:, :4]
        torch.testing.assert_close(kept, getattr(where, name), rtol=0, atol=0)


def test_moved_members_are_at_the_distance_of_the_slices_they_come_from() -> None:
    _, _, seen = registered()
    assert seen.context.index[:, 4:].tolist() == [[5, 6], [7, 8]]
    assert seen.context.distance[:, 4:].tolist() == [[-4.0, 6.0], [-3.0, 7.0]]
    assert seen.context.mask[:, 4:].all()
    torch.testing.assert_close(seen.context.gate, two_targets().gate, rtol=0, atol=0)


def test_moved_members_need_no_displacement_and_slices_have_that_of_the_motion() -> None:
    acquired, where, seen = registered()
    motion = motion_of(acquired.images, NEAREST)
    assert float(motion.abs().mean()) > 0.3
    coarse = F.avg_pool2d(motion, 2) / 2  # latent pixels are twice as large
    for k, distances in enumerate(where.distance.tolist()):
        for member, distance in enumerate(distances):
            torch.testing.assert_close(
                seen.displacement[k, member], distance / 10 * coarse[k], rtol=1e-4, atol=1e-5
            )
    assert not seen.displacement[:, 4:].any()
    assert not seen.displacement[0, 0].any(), "masked: at no distance"


def test_moved_images_are_the_nearest_slices_warped_along_the_motion() -> None:
    acquired, _, seen = registered()
    fine = enlarge(motion_of(acquired.images, NEAREST), 2)
    for k, (pair, distances) in enumerate(zip(NEAREST, ((-4.0, 6.0), (-3.0, 7.0)), strict=True)):
        for side, (slice_, distance) in enumerate(zip(pair, distances, strict=True)):
            image = acquired.images[[slice_]]
            moved = warp(image, distance / 10 * fine[[k]])[0]
            column = int(seen.context.index[k, 4 + side])
            torch.testing.assert_close(seen.images[column], moved, rtol=1e-3, atol=1e-4)
            assert float((moved - image[0]).abs().mean()) > 0.005, "it moved"


def test_latents_of_moved_members_are_those_of_the_moved_images() -> None:
    _, _, seen = registered()
    torch.testing.assert_close(seen.latents, encode(seen.images), rtol=0, atol=1e-6)


def test_moved_neighbours_resemble_each_other_more_than_the_neighbours_do() -> None:
    still = slices()[[0] * SLICES]
    images = torch.cat([image.roll(2 * k, -1) for k, image in enumerate(still.split(1))])
    where = context([1, 2, 3, 4], [-15.0, -5.0, 5.0, 15.0])
    seen = register(Acquired.of(images, encode), where)
    inner = (..., slice(8, -8), slice(12, -12))
    before = (images[2] - images[3])[inner].square().mean()
    after = (seen.images[5] - seen.images[6])[inner].square().mean()
    assert float(after) < 0.1 * float(before)
    # A pixel of the latent is four of the image: a slice at 10 mm lies half a pixel to the right.
    shift = seen.displacement[0, :, 0, 2:-2, 3:-3].mean((1, 2)).tolist()
    assert shift[:4] == pytest.approx([-0.75, -0.25, 0.25, 0.75], rel=0.35)


@pytest.mark.parametrize(
    ("distance", "own"), [([-10.0, 0.0, 10.0, 20.0], 1), ([-20.0, -10.0, 0.0, 10.0], 2)]
)
def test_at_an_acquired_position_the_moved_copy_is_that_slice(
    distance: list[float], own: int
) -> None:
    acquired = Acquired.of(slices(), encode)
    seen = register(acquired, context([0, 1, 2, 3], distance))
    copy = int(seen.context.index[0, 4])
    assert copy >= SLICES
    assert seen.context.distance[0, 4:].tolist() == [0.0, 10.0], "and the next one above"
    torch.testing.assert_close(seen.images[copy], acquired.images[own], rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.latents[copy], acquired.latents[own], rtol=0, atol=1e-3)
    assert not seen.displacement[0, own].any()


def test_the_moved_copy_tends_to_the_slice_from_either_side() -> None:
    acquired = Acquired.of(slices(), encode)
    for offset, side in ((1e-3, 0), (-1e-3, 1)):
        where = nearest_context(10.0 * np.arange(SLICES), np.array([20.0 + offset]))
        seen = register(acquired, where)
        copy = int(seen.context.index[0, 4 + side])
        torch.testing.assert_close(seen.images[copy], acquired.images[2], rtol=0, atol=1e-3)


@pytest.mark.parametrize("side", ["base", "apex"])
def test_masked_slices_are_not_moved(side: str) -> None:
    # Their index repeats the end of the stack and their distance is 0; only the mask tells.
    positions = np.array([0.0, 30.0, 60.0])
    where = nearest_context(positions, np.array([12.0 if side == "base" else 48.0]))
    acquired = Acquired.of(slices()[:3], encode)
    pair = (0, 1) if side == "base" else (1, 2)
    expected = [-12.0, 18.0] if side == "base" else [-18.0, 12.0]
    seen = register(acquired, where)
    assert seen.context.distance[0, 4:].tolist() == expected
    bare = register(acquired, context(pair, expected))
    torch.testing.assert_close(seen.images[-2:], bare.images[-2:], rtol=1e-4, atol=1e-5)
    changed = acquired.images.clone()
    changed[2 if side == "base" else 0] = 1.0
    again = register(Acquired.of(changed, encode), where)
    torch.testing.assert_close(again.images[-2:], seen.images[-2:], rtol=0, atol=0)


def test_the_hidden_slice_is_not_looked_at() -> None:
    acquired, where = Acquired.of(slices(), encode), context([0, 1, 3, 4], [-15.0, -5.0, 5.0, 15.0])
    changed = acquired.images.clone()
    changed[2] = 1.0
    one, other = (register(a, where) for a in (acquired, Acquired.of(changed, encode)))
    torch.testing.assert_close(one.displacement, other.displacement, rtol=0, atol=0)
    torch.testing.assert_close(one.images[SLICES:], other.images[SLICES:], rtol=0, atol=0)


def test_registering_targets_together_is_registering_each() -> None:
    acquired, where, seen = registered()
    for k in range(2):
        own = Context(where.index[[k]], where.distance[[k]], where.mask[[k]])
        alone = register(acquired, own)
        torch.testing.assert_close(
            alone.displacement[0], seen.displacement[k], rtol=1e-3, atol=1e-4
        )
        for side in (4, 5):
            one, other = int(alone.context.index[0, side]), int(seen.context.index[k, side])
            torch.testing.assert_close(alone.images[one], seen.images[other], rtol=1e-3, atol=1e-4)


def test_a_constant_stack_stays_as_it_is() -> None:
    acquired = Acquired.of(torch.full((SLICES, 1, HEIGHT, WIDTH), 0.5), encode)
    seen = register(acquired, two_targets())
    assert not seen.displacement.any()
    torch.testing.assert_close(seen.images, torch.full_like(seen.images, 0.5), rtol=0, atol=1e-5)


def test_nothing_that_is_registered_asks_for_gradients() -> None:
    scale = torch.ones((), requires_grad=True)
    acquired = Acquired(slices(), encode(slices()), lambda images: scale * encode(images))
    seen = register(acquired, two_targets())
    assert not seen.latents.requires_grad
    assert not seen.displacement.requires_grad
