"""tau_1 and the context: what holds by construction, whatever the parameters are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from calid.models.context import nearest_context
from calid.models.correspondence import Aligned, Context, Correspondence

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


@torch.no_grad()
def align(model: Correspondence, latents: Tensor, where: Context) -> Aligned:
    aligned: Aligned = model(latents, model.encode(latents), where)
    return aligned


def assert_same(one: Aligned, other: Aligned) -> None:
    torch.testing.assert_close(one.mean, other.mean, rtol=1e-4, atol=1e-4)
    for a, b in zip(one.pyramid, other.pyramid, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_an_untrained_network_blends_latents_by_inverse_squared_distance() -> None:
    latents, model = slices(), network(0.0)
    where = context([0, 1, 2, 3], [-14.0, -4.0, 6.0, 16.0], [True, True, True, False])
    weights = torch.tensor([14.0**-2, 4.0**-2, 6.0**-2])
    expected = torch.tensordot(weights / weights.sum(), latents[:3], dims=1)
    torch.testing.assert_close(align(model, latents, where).mean[0], expected, atol=1e-4, rtol=1e-4)


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
    index, distance = [0, 1, 2, 3], [-14.0, -4.0, 6.0, 16.0]
    mask = [False, True, True, True]
    first = align(model, latents, context(index, distance, mask))
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        shuffled = context(*([row[i] for i in order] for row in (index, distance, mask)))
        assert_same(first, align(model, latents, shuffled))


def test_the_numbering_of_the_slices_does_not_matter() -> None:
    latents, model = slices(), network(0.2)
    first = align(model, latents, context([0, 1, 2, 3], [-14.0, -4.0, 6.0, 16.0]))
    again = align(model, latents.flip(0), context([4, 3, 2, 1], [-14.0, -4.0, 6.0, 16.0]))
    assert_same(first, again)


def test_masked_entries_have_no_influence() -> None:
    latents, model = slices(), network(0.2)
    pair = align(model, latents, context([1, 2], [-4.0, 6.0]))
    for index, distance in (([0, 4], [0.0, 0.0]), ([3, 3], [-1.0, 50.0])):
        padded = context([index[0], 1, 2, index[1]], [distance[0], -4.0, 6.0, distance[1]],
                         [False, True, True, False])  # fmt: skip
        assert_same(pair, align(model, latents, padded))
    changed = latents.clone()
    changed[[0, 3, 4]] = 100.0
    assert_same(pair, align(model, changed, context([1, 2], [-4.0, 6.0])))


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
        mean = align(model, latents, context([0, 1, 2, 3], shifted)).mean[0]
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
    together = align(model, latents, Context.concatenate(parts))
    assert together.mean.shape == (2, CHANNELS, SIDE, SIDE)
    for k, part in enumerate(parts):
        alone = align(model, latents, part)
        torch.testing.assert_close(together.mean[k], alone.mean[0], rtol=1e-3, atol=1e-3)
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


def images(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(SLICES, 1, 4 * SIDE, 4 * SIDE, generator=generator)


def test_an_untrained_network_carries_images_as_it_blends_latents() -> None:
    x, where = images(), context([0, 1, 2], [-14.0, -4.0, 6.0])
    carried = align(network(0.0), slices(), where).carry(x, where)
    weights = torch.tensor([14.0**-2, 4.0**-2, 6.0**-2])
    expected = torch.tensordot(weights / weights.sum(), x[:3], dims=1)
    torch.testing.assert_close(carried[0], expected, rtol=0, atol=1e-3)


def test_carried_images_move_four_times_as_many_pixels_as_latents() -> None:
    model = network(0.0)
    with torch.no_grad():
        model.levels[0].motion.bias.copy_(torch.tensor([2.0, -1.0]))  # latent pixels per 10 mm
    x, where = images(), context([1], [5.0])
    aligned = align(model, slices(), where)
    expected_displacement = torch.tensor([1.0, -0.5])[:, None, None].expand(2, SIDE, SIDE)
    torch.testing.assert_close(aligned.displacement[0, 0], expected_displacement)
    # The target's pixel (x, y) shows the slice's pixel (x + 4, y - 2).
    carried = aligned.carry(x, where)
    torch.testing.assert_close(carried[0, :, 2:, :-4], x[1, :, :-2, 4:], rtol=0, atol=1e-3)


def test_shares_sum_to_one_and_masked_slices_have_none() -> None:
    where = context([0, 1, 2, 3], [-14.0, -4.0, 6.0, 0.0], [True, True, True, False])
    aligned = align(network(0.2), slices(), where)
    torch.testing.assert_close(aligned.share.sum(1), torch.ones(1, 1, SIDE, SIDE))
    assert float(aligned.share[:, 3].max()) == 0
    flat = aligned.carry(torch.full((SLICES, 1, 4 * SIDE, 4 * SIDE), 0.7), where)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.7), rtol=0, atol=1e-4)


def test_close_to_an_acquired_slice_that_image_is_carried() -> None:
    x, where = images(), context([0, 1, 2, 3], [-10.001, -0.001, 9.999, 19.999])
    carried = align(network(0.1), slices(), where).carry(x, where)
    torch.testing.assert_close(carried[0], x[1], rtol=0, atol=0.01)


def test_the_pyramid_halves_from_level_to_level() -> None:
    aligned = align(network(0.2), slices(), context([0, 1], [-5.0, 5.0]))
    assert [tuple(m.shape) for m in aligned.pyramid] == [
        (1, 8, SIDE, SIDE),
        (1, 16, SIDE // 2, SIDE // 2),
        (1, 16, SIDE // 4, SIDE // 4),
    ]


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


@pytest.mark.parametrize("target", [-0.1, 20.1, 100.0])
def test_a_target_outside_the_stack_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="outside the stack"):
        nearest_context(np.array([0.0, 10.0, 20.0]), np.array([5.0, target]))
