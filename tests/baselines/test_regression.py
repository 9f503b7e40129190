from __future__ import annotations

import dataclasses

import pytest
import torch
from baselines.given import CHANNELS, PLACES, SIDE, neighbours, slices

from calid.baselines.latent_linear import LatentLinear
from calid.baselines.regression import RegressionConfig, RegressionInterpolator
from calid.models.interpolator import DEFAULT, LatentInterpolator

pytestmark = pytest.mark.usefixtures("inside")

LOW, HIGH = PLACES[1:3]


def network(trained: bool = True) -> RegressionInterpolator:
    """With random weights everywhere, as after training, or as it is made."""
    torch.manual_seed(0)
    model = RegressionInterpolator(RegressionConfig(CHANNELS, (8, 16), 16))
    generator = torch.Generator().manual_seed(1)
    if trained:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)


def test_an_untrained_regression_is_the_straight_line() -> None:
    seen = neighbours(slices(), [9.0, 13.0, 17.0])
    torch.testing.assert_close(network(trained=False)(seen, 1), LatentLinear()(seen))


def test_a_trained_one_sees_all_four_slices() -> None:
    model, known = network(), slices()
    base = model(neighbours(known, [12.0]), 1)
    assert base.shape == (1, CHANNELS, SIDE, SIDE)
    assert base.isfinite().all(), "registered slices are not looked at"
    for number in range(4):
        other = known.clone()
        other[number] += 1
        assert not torch.equal(model(neighbours(other, [12.0]), 1), base)


def test_a_missing_slice_is_not_a_grey_one() -> None:
    model, known = network(), slices()
    alone = neighbours(known, [12.0], alone=True)
    there = dataclasses.replace(alone, distance=neighbours(known, [12.0]).distance)
    assert not torch.allclose(model(alone), model(there), atol=1e-4)
    assert model(alone).isfinite().all()


def test_distances_matter() -> None:
    model, seen = network(), neighbours(slices(), [12.0])
    distance = seen.distance.clone()
    distance[:, 2] -= 4  # not of the adjacent two, so that the line stays
    farther = dataclasses.replace(seen, distance=distance)
    assert not torch.allclose(model(seen), model(farther), atol=1e-4)


@pytest.mark.parametrize(("place", "number"), [(LOW + 1e-4, 1), (HIGH - 1e-4, 2)])
def test_close_to_a_slice_the_answer_is_that_slice(place: float, number: int) -> None:
    known = slices()
    found = network()(neighbours(known, [place]))[0]
    torch.testing.assert_close(found, known[number], rtol=0, atol=1e-3)


def test_targets_do_not_depend_on_each_other() -> None:
    model, known = network(), slices()
    targets = [9.0, 13.0, 16.0]
    apart = torch.cat([model(neighbours(known, [t])) for t in targets])
    torch.testing.assert_close(model(neighbours(known, targets)), apart, rtol=1e-4, atol=1e-4)


def test_it_is_as_large_as_what_it_is_compared_with() -> None:
    with torch.device("meta"):
        model, preset = RegressionInterpolator(RegressionConfig()), LatentInterpolator(DEFAULT)
    one, other = (sum(p.numel() for p in m.parameters()) for m in (model.unet, preset.tau_1))
    assert one == pytest.approx(other, rel=0.02)
