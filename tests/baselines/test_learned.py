"""The learned baselines: what regression and diffusion autoencoder must do, trained or not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from baselines.given import CHANNELS, PLACES, SIDE, neighbours, slices
from torch import Tensor

from calid.baselines.latent_rules import LatentLinear
from calid.baselines.learned import (
    CodeEncoder,
    DiffusionAutoencoder,
    DiffusionAutoencoderConfig,
    RegressionConfig,
    RegressionInterpolator,
)
from calid.diffusion import variance_preserving
from calid.models.interpolator import DEFAULT, PAPER, LatentInterpolator

pytestmark = pytest.mark.usefixtures("inside")

SIZES = DiffusionAutoencoderConfig(CHANNELS, (8, 16), semantic=12, embedding=16)
LOW, HIGH = PLACES[1:3]
MIDDLE = [13.0]


def disturbed(model: Any, size: float) -> Any:
    """With random weights everywhere, as after training, so that every input matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)


def regression(trained: bool = True) -> RegressionInterpolator:
    torch.manual_seed(0)
    model = RegressionInterpolator(RegressionConfig(CHANNELS, (8, 16), 16))
    return disturbed(model, 0.1 if trained else 0.0)


def autoencoder() -> DiffusionAutoencoder:
    torch.manual_seed(0)
    return disturbed(DiffusionAutoencoder(SIZES), 0.05)


def answer(model: Any, latents: Tensor, targets: list[float], steps: int = 10) -> Tensor:
    found: Tensor = model(neighbours(latents, targets), steps)
    return found


def test_an_untrained_regression_is_the_straight_line() -> None:
    seen = neighbours(slices(), [9.0, 13.0, 17.0])
    torch.testing.assert_close(regression(trained=False)(seen, 1), LatentLinear()(seen))


def test_a_trained_one_sees_all_four_slices() -> None:
    model, known = regression(), slices()
    base = model(neighbours(known, [12.0]), 1)
    assert base.shape == (1, CHANNELS, SIDE, SIDE)
    assert base.isfinite().all(), "registered slices are not looked at"
    for number in range(4):
        other = known.clone()
        other[number] += 1
        assert not torch.equal(model(neighbours(other, [12.0]), 1), base)


def test_a_missing_slice_is_not_a_grey_one() -> None:
    model, known = regression(), slices()
    alone = neighbours(known, [12.0], alone=True)
    there = dataclasses.replace(alone, distance=neighbours(known, [12.0]).distance)
    assert not torch.allclose(model(alone), model(there), atol=1e-4)
    assert model(alone).isfinite().all()


def test_distances_matter() -> None:
    model, seen = regression(), neighbours(slices(), [12.0])
    distance = seen.distance.clone()
    distance[:, 2] -= 4  # not of the adjacent two, so that the line stays
    farther = dataclasses.replace(seen, distance=distance)
    assert not torch.allclose(model(seen), model(farther), atol=1e-4)


@pytest.mark.parametrize(("place", "number"), [(LOW + 1e-4, 1), (HIGH - 1e-4, 2)])
def test_close_to_a_slice_the_answer_is_that_slice(place: float, number: int) -> None:
    known = slices()
    found = regression()(neighbours(known, [place]))[0]
    torch.testing.assert_close(found, known[number], rtol=0, atol=1e-3)


class Exact(DiffusionAutoencoder):
    """Predicts the exact noise in Gaussian slices around the first number of their code.

    Random weights will not do: what is no denoiser need not be invertible.
    """

    def noise(self, x: Tensor, t: Tensor, code: Tensor) -> Tensor:
        alpha, sigma = (v[:, None, None, None] for v in variance_preserving(t))
        around = code[:, 0, None, None, None].expand(len(x), 1, 1, 1)
        return sigma * (x - alpha * around) / (0.9 * alpha**2 + sigma**2)


def exact() -> Exact:
    torch.manual_seed(0)
    return Exact(SIZES).eval().requires_grad_(False)


def test_inverting_and_rendering_gives_the_slice_back() -> None:
    model, known = exact(), slices()
    code = model.semantic(known)
    errors = []
    for steps in (25, 50, 100):
        noise = model.invert(known, code, steps)
        assert float(noise.std()) == pytest.approx(1, abs=0.2)
        errors.append(float((model.render(noise, code, steps) - known).std()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.04


def test_rendering_with_another_code_does_not() -> None:
    model, known = exact(), slices()
    code = torch.tensor([-1.0, 0.0, 1.0, 2.0])[:, None]
    noise = model.invert(known, code, 50)
    moved = model.render(noise, code + 1, 50) - known
    assert float(moved.mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("target", "number"), [(8.001, 1), (17.999, 2)])
def test_at_the_ends_of_a_gap_stand_its_slices(target: float, number: int) -> None:
    known = slices()
    filled = answer(exact(), known, [target], steps=100)[0]
    assert float((filled - known[number]).std()) < 0.04
    assert float((filled - known[3 - number]).std()) > 1


@pytest.mark.slow
def test_only_the_slices_of_the_gap_matter() -> None:
    model, known = autoencoder(), slices()
    other = known.clone()
    other[[0, 3]] += 1
    torch.testing.assert_close(
        answer(model, other, MIDDLE), answer(model, known, MIDDLE), rtol=0, atol=0
    )


@pytest.mark.slow
def test_a_stack_upside_down_has_the_same_slice_in_between() -> None:
    model, known = autoencoder(), slices()
    # The places of the slices are the same from either side.
    turned = answer(model, known.flip(0), [PLACES[-1] - 11.0])
    torch.testing.assert_close(turned, answer(model, known, [11.0]), rtol=1e-4, atol=1e-4)


def test_both_neighbours_are_inverted_once_for_all_targets_of_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, known = autoencoder(), slices()
    batches = []
    noise = model.noise

    def counted(x: Tensor, t: Tensor, code: Tensor) -> Tensor:
        batches.append(len(x))
        return noise(x, t, code)

    monkeypatch.setattr(model, "noise", counted)
    answer(model, known, [9.0, 12.0, 17.0], steps=5)
    assert batches == [2] * 4 + [3] * 5


@pytest.mark.parametrize("side", [8, 12, 20])
def test_a_code_is_one_vector_whatever_the_size(side: int) -> None:
    encoder = CodeEncoder(CHANNELS, (8, 16, 16), 12)
    assert encoder(torch.zeros(2, CHANNELS, side, side)).shape == (2, 12)


@pytest.mark.slow
@pytest.mark.parametrize("make", [regression, autoencoder])
def test_targets_of_a_gap_do_not_depend_on_each_other(make) -> None:
    model, known = make(), slices()
    targets = [9.0, 12.0, 17.0]
    apart = torch.cat([answer(model, known, [t]) for t in targets])
    torch.testing.assert_close(answer(model, known, targets), apart, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "config", "preset", "compared", "close"),
    [
        (RegressionInterpolator, RegressionConfig(), DEFAULT, ("unet", "tau_1"), 0.02),
        (DiffusionAutoencoder, DiffusionAutoencoderConfig(), PAPER, None, 0.05),
    ],
)
def test_they_are_as_large_as_what_they_are_compared_with(
    make, config, preset, compared, close
) -> None:
    with torch.device("meta"):
        # The baseline sees every frame by itself.
        models = [make(config), LatentInterpolator(dataclasses.replace(preset, mixing=()))]
    if compared:
        models = [getattr(model, part) for model, part in zip(models, compared, strict=True)]
    one, other = (sum(p.numel() for p in model.parameters()) for model in models)
    assert one == pytest.approx(other, rel=close)
