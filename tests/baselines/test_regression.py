from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from calid.baselines.regression import RegressionConfig, RegressionInterpolator
from calid.models.context import Acquired, Context, nearest_context

pytestmark = pytest.mark.usefixtures("inside")

CHANNELS, SIDE = 3, 8
POSITIONS = np.array([0.0, 8.0, 16.0, 25.0, 33.0])


def network(trained: bool = True, per_side: int = 2) -> RegressionInterpolator:
    """With random weights everywhere, as after training, or as it is made."""
    torch.manual_seed(0)
    model = RegressionInterpolator(RegressionConfig(CHANNELS, (8, 16), per_side))
    generator = torch.Generator().manual_seed(1)
    if trained:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def slices(count: int = len(POSITIONS)) -> Acquired:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(count, 1, 4 * SIDE, 4 * SIDE, generator=generator)
    latents = torch.randn(count, CHANNELS, SIDE, SIDE, generator=generator)
    return Acquired(images, latents, lambda x: latents)


def fill(model: RegressionInterpolator, acquired: Acquired, *targets: float) -> Tensor:
    places = POSITIONS[: len(acquired.latents)]
    return model.fill(acquired, places, np.array(targets), None, 1, 1.0).latents


def test_an_untrained_regression_is_the_blend_of_the_nearest_two() -> None:
    known = slices()
    below, above = known.latents[2:4]
    filled = fill(network(trained=False), known, 16.9, 20.5, 22.3)
    for latent, share in zip(filled, (0.1, 0.5, 0.7), strict=True):
        torch.testing.assert_close(latent, torch.lerp(below, above, share), rtol=1e-5, atol=1e-5)


def test_a_trained_one_sees_all_four_slices_and_only_them() -> None:
    model, known = network(), slices()
    base = fill(model, known, 12.0)
    for number, seen in enumerate((True, True, True, True, False)):
        latents = known.latents.clone()
        latents[number] += 1
        other = fill(model, Acquired(known.images, latents, known.encode), 12.0)
        assert bool(torch.equal(other, base)) is not seen


def test_what_is_masked_has_no_influence() -> None:
    model, known = network(), slices()
    context = nearest_context(POSITIONS, np.array([4.0, 29.0]))
    assert (~context.mask).sum() == 2
    latents = torch.cat([known.latents, torch.full_like(known.latents[:1], torch.nan)])
    elsewhere = Context(
        context.index.masked_fill(~context.mask, len(known.latents)),
        context.distance.masked_fill(~context.mask, 3.0),
        context.mask,
    )
    expected = model(known.latents, context)
    assert expected.isfinite().all()
    torch.testing.assert_close(model(latents, elsewhere), expected, rtol=0, atol=0)


def test_a_missing_slice_is_not_a_black_one() -> None:
    model, known = network(), slices()
    latents = known.latents.clone()
    latents[0] = 0
    context = nearest_context(POSITIONS, np.array([12.0]))
    mask = context.mask.clone()
    mask[0, 0] = False
    hidden = Context(context.index, context.distance, mask)
    assert not torch.allclose(model(latents, context), model(latents, hidden), atol=1e-4)


def test_distances_matter() -> None:
    model, known = network(), slices()
    context = nearest_context(POSITIONS, np.array([12.0]))
    distance = context.distance.clone()
    distance[:, 0] -= 4  # not of the nearest two, so that the blend stays
    farther = Context(context.index, distance, context.mask)
    assert not torch.allclose(
        model(known.latents, context), model(known.latents, farther), atol=1e-4
    )


@pytest.mark.parametrize(("place", "number"), [(8.0, 1), (16.0, 2)])
def test_close_to_a_slice_the_answer_is_that_slice(place: float, number: int) -> None:
    known = slices()
    inwards = 1e-4 if number == 1 else -1e-4
    filled = fill(network(), known, place + inwards)[0]
    torch.testing.assert_close(filled, known.latents[number], rtol=0, atol=1e-3)


def test_nothing_is_drawn_and_targets_do_not_depend_on_each_other() -> None:
    model, known = network(), slices()

    def draw(shape: tuple[int, ...]) -> Tensor:
        raise AssertionError("there is no noise")

    targets = np.array([18.0, 20.0, 23.0])
    together = model.fill(known, POSITIONS, targets, draw, 7, 0.3)
    assert together.around is None
    apart = torch.cat([fill(model, known, t) for t in targets])
    torch.testing.assert_close(together.latents, apart, rtol=1e-5, atol=1e-5)


def test_two_slices_are_enough() -> None:
    assert fill(network(), slices(2), 3.0).shape == (1, CHANNELS, SIDE, SIDE)
    assert fill(network(per_side=1), slices(2), 3.0).isfinite().all()
