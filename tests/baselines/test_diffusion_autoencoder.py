from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.baselines.codes import CodeEncoder
from calid.baselines.diffusion_autoencoder import (
    DiffusionAutoencoder,
    DiffusionAutoencoderConfig,
    Labels,
)
from calid.diffusion.schedule import variance_preserving
from calid.models.context import Acquired

pytestmark = pytest.mark.usefixtures("inside")

CHANNELS, SIDE = 3, 8
POSITIONS = np.array([0.0, 8.0, 18.0, 26.0])
SIZES = DiffusionAutoencoderConfig(CHANNELS, (8, 16), semantic=12, embedding=16)
MIDDLE = np.array([13.0])


def network(
    config: DiffusionAutoencoderConfig = SIZES, labels: Labels | None = None
) -> DiffusionAutoencoder:
    """With small random weights everywhere, so that every input matters."""
    torch.manual_seed(0)
    model = DiffusionAutoencoder(config, labels)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)


def slices() -> Acquired:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(len(POSITIONS), 1, 4 * SIDE, 4 * SIDE, generator=generator)
    latents = torch.randn(len(POSITIONS), CHANNELS, SIDE, SIDE, generator=generator)
    return Acquired(images, latents, lambda x: latents)


def fill(model: DiffusionAutoencoder, acquired: Acquired, targets: object, steps: int = 10):
    return model.fill(acquired, POSITIONS, np.array(targets), None, steps, 1.0).latents


def thirds(images: Tensor) -> Tensor:
    """Labels by brightness."""
    return F.one_hot((3 * images[:, 0]).long().clamp(0, 3), 4).movedim(-1, 1).float()


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
    code = model.code(known.latents, known.images)
    errors = []
    for steps in (25, 50, 100):
        noise = model.invert(known.latents, code, steps)
        assert float(noise.std()) == pytest.approx(1, abs=0.2)
        errors.append(float((model.render(noise, code, steps) - known.latents).std()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.04


def test_rendering_with_another_code_does_not() -> None:
    model, known = exact(), slices()
    code = torch.tensor([-1.0, 0.0, 1.0, 2.0])[:, None]
    noise = model.invert(known.latents, code, 50)
    moved = model.render(noise, code + 1, 50) - known.latents
    assert float(moved.mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("target", "number"), [(8.001, 1), (17.999, 2)])
def test_at_the_ends_of_a_gap_stand_its_slices(target: float, number: int) -> None:
    known = slices()
    filled = fill(exact(), known, [target], steps=100)[0]
    assert float((filled - known.latents[number]).std()) < 0.04
    assert float((filled - known.latents[3 - number]).std()) > 1


@pytest.mark.slow
def test_the_answer_is_deterministic_and_draws_nothing() -> None:
    model, known = network(), slices()

    def draw(shape: tuple[int, ...]) -> Tensor:
        raise AssertionError("the noise comes from the neighbours")

    filled = model.fill(known, POSITIONS, MIDDLE, draw, 10, 0.5)
    assert filled.around is None
    torch.testing.assert_close(filled.latents, fill(model, known, MIDDLE), rtol=0, atol=0)


@pytest.mark.slow
def test_targets_of_a_gap_do_not_depend_on_each_other() -> None:
    model, known = network(), slices()
    targets = [9.0, 12.0, 17.0]
    apart = torch.cat([fill(model, known, [t]) for t in targets])
    torch.testing.assert_close(fill(model, known, targets), apart, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_only_the_slices_of_the_gap_matter() -> None:
    model, known = network(), slices()
    latents = known.latents.clone()
    latents[[0, 3]] += 1
    other = dataclasses.replace(known, latents=latents)
    torch.testing.assert_close(
        fill(model, other, MIDDLE), fill(model, known, MIDDLE), rtol=0, atol=0
    )


def test_a_stack_upside_down_has_the_same_slice_in_between() -> None:
    model, known = network(), slices()
    turned = Acquired(known.images.flip(0), known.latents.flip(0), known.encode)
    places = POSITIONS[-1] - POSITIONS[::-1]
    answer = model.fill(turned, places, POSITIONS[-1] - np.array([11.0]), None, 10, 1.0).latents
    torch.testing.assert_close(answer, fill(model, known, [11.0]), rtol=1e-4, atol=1e-4)


def test_both_neighbours_are_inverted_once_for_all_targets_of_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, known = network(), slices()
    batches = []
    noise = model.noise

    def counted(x: Tensor, t: Tensor, code: Tensor) -> Tensor:
        batches.append(len(x))
        return noise(x, t, code)

    monkeypatch.setattr(model, "noise", counted)
    fill(model, known, [9.0, 12.0, 17.0], steps=5)
    assert batches == [2] * 4 + [3] * 5


@pytest.mark.parametrize("side", [8, 12, 20])
def test_a_code_is_one_vector_whatever_the_size(side: int) -> None:
    encoder = CodeEncoder(CHANNELS, (8, 16, 16), 12)
    assert encoder(torch.zeros(2, CHANNELS, side, side)).shape == (2, 12)


def test_a_morphology_code_of_the_labels_stands_beside_the_semantic_one() -> None:
    known = slices()
    model = network(dataclasses.replace(SIZES, morphology=True), thirds)
    code = model.code(known.latents, known.images)
    assert code.shape == (4, 12 + 64)
    other = model.code(known.latents, 0.5 * known.images)
    torch.testing.assert_close(code[:, :12], other[:, :12], rtol=0, atol=0)
    assert not torch.allclose(code[:, 12:], other[:, 12:], atol=1e-4)
    assert fill(model, known, [9.0, 12.0]).shape == (2, CHANNELS, SIDE, SIDE)


def test_morphology_without_labels_is_refused() -> None:
    model = network(dataclasses.replace(SIZES, morphology=True))
    with pytest.raises(ValueError, match="labels"):
        fill(model, slices(), MIDDLE)
    model.label_with(thirds)
    assert fill(model, slices(), MIDDLE).isfinite().all()


def test_a_network_that_labels_does_not_become_a_part_of_the_autoencoder() -> None:
    class Threshold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 1, 1, 1))

        def forward(self, images: Tensor) -> Tensor:
            return F.conv2d(images, self.weight)

    model = network(dataclasses.replace(SIZES, morphology=True), Threshold())
    assert not any("labels" in key for key in model.state_dict())
    assert model.code(slices().latents, slices().images).shape == (4, 76)
