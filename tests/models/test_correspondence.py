"""tau_1: what holds by construction, whatever the parameters are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from calid.models.context import Context, Registered
from calid.models.correspondence import Correspondence, carry

pytestmark = pytest.mark.usefixtures("inside")

CHANNELS, SIDE, SLICES = 3, 16, 5


def network(noise: float, seed: int = 0) -> Correspondence:
    """Untrained for ``noise = 0``; otherwise no branch is zero and motion is of a few pixels."""
    torch.manual_seed(seed)
    model = Correspondence(CHANNELS, (8, 16, 16)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
    return model


def slices(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SLICES, CHANNELS, SIDE, SIDE, generator=generator)


def context(
    index: Sequence[int], distance: Sequence[float], mask: Sequence[bool] | None = None
) -> Context:
    """Of one target."""
    return Context(
        torch.tensor([index]),
        torch.tensor([distance]),
        torch.tensor([[True] * len(index) if mask is None else mask]),
    )


def images(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(SLICES, 1, 4 * SIDE, 4 * SIDE, generator=generator)


class Answer(NamedTuple):
    """Of tau_1, with the images that it carries."""

    mean: Tensor
    pyramid: list[Tensor]
    displacement: Tensor
    share: Tensor
    carried: Tensor


@torch.no_grad()
def align(
    model: Correspondence,
    latents: Tensor,
    where: Context,
    pictures: Tensor | None = None,
    velocity: Tensor | None = None,
    moved: Sequence[bool] | None = None,
) -> Answer:
    """Align what was registered with a motion, latent pixels per 10 mm; by default with none."""
    moved = [False] * where.index.shape[1] if moved is None else moved
    velocity = torch.zeros(2, SIDE, SIDE) if velocity is None else velocity
    reach = torch.where(torch.tensor(moved), 0.0, where.distance / 10)[..., None, None, None]
    seen = Registered(
        images() if pictures is None else pictures,
        latents,
        where,
        torch.tensor(moved),
        reach * velocity,
        nearest=where.index[:, :2],
        motion=torch.zeros(len(where.index), 2, 2 * SIDE, 2 * SIDE),
    )
    aligned = model(seen)
    parts = aligned.mean, aligned.pyramid, aligned.displacement, aligned.share
    return Answer(*parts, carry(seen, aligned))


def blend(weights: Tensor, members: Tensor) -> Tensor:
    """Weighted mean over the first axis; no product that a precision would round."""
    return (weights[:, None, None, None] * members).sum(0) / weights.sum()


def constant(x: float, y: float) -> Tensor:
    """The same motion everywhere."""
    return torch.tensor([x, y])[:, None, None].expand(2, SIDE, SIDE)


def swirl() -> Tensor:
    """A motion that differs from place to place."""
    rows, columns = torch.meshgrid(*[torch.linspace(-2, 2, SIDE)] * 2, indexing="ij")
    return torch.stack([rows + 0.5, -columns])


def assert_same(one: Answer, other: Answer) -> None:
    torch.testing.assert_close(one.mean, other.mean, rtol=1e-4, atol=1e-4)
    for a, b in zip(one.pyramid, other.pyramid, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.carried, other.carried, rtol=1e-4, atol=1e-4)


def test_an_untrained_network_blends_latents_by_inverse_squared_distance() -> None:
    latents, model = slices(), network(0.0)
    where = context([0, 1, 2, 3], [-14.0, -4.0, 6.0, 16.0], [True, True, True, False])
    weights = torch.tensor([14.0**-2, 4.0**-2, 6.0**-2])
    expected = blend(weights, latents[:3])
    torch.testing.assert_close(align(model, latents, where).mean[0], expected, atol=1e-4, rtol=1e-4)


def test_an_untrained_network_blends_registered_latents() -> None:
    # Whole pixels, so that the registered latents are known: slices at -10, 10 and 20 mm lie
    # at -1, 1 and 2 times the motion; the last two members have arrived already.
    latents, x = slices(), images()
    where = context([0, 1, 2, 3, 4], [-10.0, 10.0, 20.0, -10.0, 10.0])
    moved = [False] * 3 + [True] * 2
    aligned = align(network(0.0), latents, where, x, constant(1.0, -2.0), moved)
    weights = torch.tensor([1.0, 1.0, 0.25, 1.0, 1.0])
    for answer, source, scale in ((aligned.mean, latents, 1), (aligned.carried, x, 4)):
        shifts = [(int(2 * d * scale), int(-d * scale)) for d in (-1, 1, 2, 0, 0)]
        arrived = [s.roll(shift, (1, 2)) for s, shift in zip(source, shifts, strict=True)]
        expected = blend(weights, torch.stack(arrived))
        inner = (..., slice(4 * scale, -4 * scale), slice(4 * scale, -4 * scale))
        torch.testing.assert_close(answer[0][inner], expected[inner], rtol=0, atol=1e-3)
    expected = constant(1.0, -2.0) * torch.tensor([-1.0, 1.0, 2.0, 0.0, 0.0])[:, None, None, None]
    torch.testing.assert_close(aligned.displacement[0], expected)


def test_what_is_learned_is_added_to_the_motion_that_was_found() -> None:
    where, velocity = context([0, 1], [-5.0, 5.0]), swirl()
    for level in range(3):
        model = network(0.0)
        with torch.no_grad():
            model.levels[level].motion.bias.copy_(torch.tensor([2.0, -1.0]) / 2**level)
        found = align(model, slices(), where, velocity=velocity).displacement[0]
        expected = (velocity + constant(2.0, -1.0)) / 2
        torch.testing.assert_close(found, torch.stack([-expected, expected]), rtol=0, atol=1e-4)


def test_members_that_were_moved_are_told_from_slices() -> None:
    latents, where = slices(), context([0, 1, 2, 3], [-4.0, 6.0, -4.0, 6.0])
    for model, least, most in ((network(0.2), 1e-2, 1e9), (network(0.0), 0.0, 1e-5)):
        one, other = (
            align(model, latents, where, moved=moved).mean
            for moved in ([False, False, True, True], [False] * 4)
        )
        assert least <= float((one - other).abs().mean()) <= most


def test_the_motion_that_was_found_matters_at_every_level() -> None:
    where = context([0, 1, 2, 3], [-14.0, -4.0, 6.0, 16.0])
    still = align(network(0.2), slices(), where)
    moving = align(network(0.2), slices(), where, velocity=swirl())
    for a, b in zip(still.pyramid, moving.pyramid, strict=True):
        assert float((a - b).abs().mean()) > 1e-3


def test_slices_that_the_motion_explains_look_at_every_level_as_if_nothing_had_moved(
    inside: torch.dtype,
) -> None:
    tolerance = {torch.float32: 0.01, torch.bfloat16: 0.05}[inside]
    # Four pixels of the latent are one of the coarsest level, so features move with the slices.
    side, model = 96, network(0.05)
    target = torch.randn(CHANNELS, side, side, generator=torch.Generator().manual_seed(0))
    where, pictures = context([0, 1], [-10.0, 10.0]), torch.zeros(2, 1, side, side)
    velocity = torch.tensor([4.0, -8.0])[:, None, None].expand(2, side, side)
    displaced = torch.stack([target.roll((8, -4), (1, 2)), target.roll((-8, 4), (1, 2))])
    moving = align(model, displaced, where, pictures, velocity)
    still = align(model, torch.stack([target, target]), where, pictures, 0 * velocity)
    wrong = align(model, displaced, where, pictures, 0 * velocity)
    for level, maps in enumerate(zip(moving.pyramid, still.pyramid, wrong.pyramid, strict=True)):
        inner = (..., slice(40 >> level, -(40 >> level)), slice(40 >> level, -(40 >> level)))
        found, expected, unexplained = (m[inner] for m in maps)
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=tolerance)
        assert float((unexplained - expected).abs().mean()) > 0.05


def test_midway_between_two_slices_an_untrained_network_takes_their_average() -> None:
    latents = slices()
    mean = align(network(0.0), latents, context([2, 4], [-5.0, 5.0])).mean[0]
    torch.testing.assert_close(mean, (latents[2] + latents[4]) / 2, atol=1e-4, rtol=1e-4)


def test_a_trained_network_does_more_than_blend() -> None:
    # Guards the tests below: with these parameters alignment and correction are at work.
    latents, where = slices(), context([0, 1, 2, 3], [-14.0, -4.0, 6.0, 16.0])
    difference = align(network(0.2), latents, where).mean - align(network(0.0), latents, where).mean
    assert float(difference.abs().mean()) > 0.1


def test_the_order_of_the_context_does_not_matter() -> None:
    latents, model = slices(), network(0.2)
    index, distance = [0, 1, 2, 3, 4, 3], [-14.0, -4.0, 6.0, 16.0, -4.0, 6.0]
    mask, moved = [False, True, True, True, True, True], [False] * 4 + [True] * 2
    where = context(index, distance, mask)
    first = align(model, latents, where, velocity=swirl(), moved=moved)
    for order in ([3, 2, 1, 0, 5, 4], [4, 1, 3, 5, 0, 2]):
        columns = ([row[i] for i in order] for row in (index, distance, mask))
        again = [moved[i] for i in order]
        shuffled = align(model, latents, context(*columns), velocity=swirl(), moved=again)
        assert_same(first, shuffled)


def test_the_numbering_of_the_slices_does_not_matter() -> None:
    latents, model = slices(), network(0.2)
    x, distance = images(), [-14.0, -4.0, 6.0, 16.0]
    first = align(model, latents, context([0, 1, 2, 3], distance), x)
    again = align(model, latents.flip(0), context([4, 3, 2, 1], distance), x.flip(0))
    assert_same(first, again)


def test_masked_entries_have_no_influence() -> None:
    latents, x, model, velocity = slices(), images(), network(0.2), swirl()
    where = context([1, 2], [-4.0, 6.0])
    pair = align(model, latents, where, x, velocity)
    for index, distance in (([0, 4], [0.0, 0.0]), ([3, 3], [-1.0, 50.0])):
        padded = context([index[0], 1, 2, index[1]], [distance[0], -4.0, 6.0, distance[1]],
                         [False, True, True, False])  # fmt: skip
        assert_same(pair, align(model, latents, padded, x, velocity))
    changed, altered = latents.clone(), x.clone()
    changed[[0, 3, 4]] = 100.0
    altered[[0, 3, 4]] = 100.0
    assert_same(pair, align(model, changed, where, altered, velocity))


def test_unmasked_entries_do_have_influence() -> None:
    latents, model = slices(), network(0.2)
    where = context([0, 1, 2, 3], [-14.0, -4.0, 6.0, 16.0])
    mean = align(model, latents, where).mean
    changed = latents.clone()
    changed[3] += 1.0
    assert float((align(model, changed, where).mean - mean).abs().mean()) > 1e-3


@pytest.mark.parametrize("nearest", [1, 2])
def test_close_to_an_acquired_slice_the_answer_is_that_slice(nearest: int) -> None:
    latents, model = slices(), network(0.1)
    place = 10.0 * nearest
    errors = []
    for offset in (3.0, 1e-2, 1e-3, 1e-4):
        shifted = [10.0 * i - place - (offset if nearest == 1 else -offset) for i in range(4)]
        where = context([0, 1, 2, 3], shifted)
        mean = align(model, latents, where, velocity=swirl()).mean[0]
        errors.append(float((mean - latents[nearest]).abs().max()))
    assert errors[0] > 0.3
    assert errors[2] < 0.02
    # What is left is proportional to the distance.
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.3)
    assert errors[2] / errors[3] == pytest.approx(10, rel=0.3)


def test_targets_of_a_batch_do_not_see_each_other() -> None:
    latents, model = slices(), network(0.2)
    parts = [
        context([0, 1, 2, 3], [-14.0, -4.0, 6.0, 16.0]),
        context([1, 2, 3, 4], [-12.0, -2.0, 8.0, 18.0], [True, True, True, False]),
    ]
    together = align(model, latents, Context.concatenate(parts), velocity=swirl())
    assert together.mean.shape == (2, CHANNELS, SIDE, SIDE)
    assert together.carried.shape == (2, 1, 4 * SIDE, 4 * SIDE)
    for k, part in enumerate(parts):
        alone = align(model, latents, part, velocity=swirl())
        for name in ("mean", "displacement", "share", "carried"):
            one, other = getattr(together, name)[k], getattr(alone, name)[0]
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        for level, own in zip(together.pyramid, alone.pyramid, strict=True):
            torch.testing.assert_close(level[k], own[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_image_that_moves_steadily_is_met_half_way(level: int) -> None:
    # A displacement is proportional to the distance: teach the motion branch one velocity, in
    # pixels of its own level per 10 mm.
    model = network(0.0)
    with torch.no_grad():
        model.levels[level].motion.bias.copy_(torch.tensor([2.0, -1.0]) / 2**level)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")

    def blob(x: float, y: float) -> Tensor:
        return torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8.0).expand(CHANNELS, -1, -1)

    latents = torch.stack([blob(6.0, 9.0), blob(8.0, 8.0), blob(10.0, 7.0)])
    mean = align(model, latents, context([0, 2], [-10.0, 10.0])).mean[0]
    inner = slice(3, -3)
    torch.testing.assert_close(
        mean[:, inner, inner], latents[1][:, inner, inner], atol=1e-3, rtol=0
    )


def test_an_untrained_network_carries_images_as_it_blends_latents() -> None:
    x, where = images(), context([0, 1, 2], [-14.0, -4.0, 6.0])
    carried = align(network(0.0), slices(), where, x).carried
    weights = torch.tensor([14.0**-2, 4.0**-2, 6.0**-2])
    expected = blend(weights, x[:3])
    torch.testing.assert_close(carried[0], expected, rtol=0, atol=1e-3)


def test_carried_images_move_four_times_as_many_pixels_as_latents() -> None:
    model = network(0.0)
    with torch.no_grad():
        model.levels[0].motion.bias.copy_(torch.tensor([2.0, -1.0]))  # latent pixels per 10 mm
    x, where = images(), context([1], [5.0])
    aligned = align(model, slices(), where, x)
    expected_displacement = torch.tensor([1.0, -0.5])[:, None, None].expand(2, SIDE, SIDE)
    torch.testing.assert_close(aligned.displacement[0, 0], expected_displacement)
    # The target's pixel (x, y) shows the slice's pixel (x + 4, y - 2).
    torch.testing.assert_close(aligned.carried[0, :, 2:, :-4], x[1, :, :-2, 4:], rtol=0, atol=1e-3)


def test_shares_sum_to_one_and_masked_slices_have_none() -> None:
    where = context([0, 1, 2, 3], [-14.0, -4.0, 6.0, 0.0], [True, True, True, False])
    flat = torch.full((SLICES, 1, 4 * SIDE, 4 * SIDE), 0.7)
    aligned = align(network(0.2), slices(), where, flat)
    torch.testing.assert_close(aligned.share.sum(1), torch.ones(1, 1, SIDE, SIDE))
    assert float(aligned.share[:, 3].max()) == 0
    torch.testing.assert_close(aligned.carried, flat[:1], rtol=0, atol=1e-4)


def test_close_to_an_acquired_slice_that_image_is_carried() -> None:
    x, where = images(), context([0, 1, 2, 3], [-10.001, -0.001, 9.999, 19.999])
    carried = align(network(0.1), slices(), where, x, swirl()).carried
    torch.testing.assert_close(carried[0], x[1], rtol=0, atol=0.01)


def test_the_pyramid_halves_from_level_to_level() -> None:
    aligned = align(network(0.2), slices(), context([0, 1], [-5.0, 5.0]))
    assert [tuple(m.shape) for m in aligned.pyramid] == [
        (1, 8, SIDE, SIDE),
        (1, 16, SIDE // 2, SIDE // 2),
        (1, 16, SIDE // 4, SIDE // 4),
    ]
