from __future__ import annotations

import pytest
import torch
from baselines.given import CHANNELS, PLACES, neighbours, slices
from torch import Tensor

from calid.baselines.codes import CodeEncoder
from calid.baselines.diffusion_autoencoder import DiffusionAutoencoder, DiffusionAutoencoderConfig
from calid.diffusion import variance_preserving
from calid.models.interpolator import PAPER, LatentInterpolator

pytestmark = pytest.mark.usefixtures("inside")

SIZES = DiffusionAutoencoderConfig(CHANNELS, (8, 16), semantic=12, embedding=16)
MIDDLE = [13.0]


def network() -> DiffusionAutoencoder:
    """With small random weights everywhere, so that every input matters."""
    torch.manual_seed(0)
    model = DiffusionAutoencoder(SIZES)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)


def answer(
    model: DiffusionAutoencoder, latents: Tensor, targets: list[float], steps: int = 10
) -> Tensor:
    found: Tensor = model(neighbours(latents, targets), steps)
    return found


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
def test_targets_of_a_gap_do_not_depend_on_each_other() -> None:
    model, known = network(), slices()
    targets = [9.0, 12.0, 17.0]
    apart = torch.cat([answer(model, known, [t]) for t in targets])
    torch.testing.assert_close(answer(model, known, targets), apart, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_only_the_slices_of_the_gap_matter() -> None:
    model, known = network(), slices()
    other = known.clone()
    other[[0, 3]] += 1
    torch.testing.assert_close(
        answer(model, other, MIDDLE), answer(model, known, MIDDLE), rtol=0, atol=0
    )


@pytest.mark.slow
def test_a_stack_upside_down_has_the_same_slice_in_between() -> None:
    model, known = network(), slices()
    # The places of the slices are the same from either side.
    turned = answer(model, known.flip(0), [PLACES[-1] - 11.0])
    torch.testing.assert_close(turned, answer(model, known, [11.0]), rtol=1e-4, atol=1e-4)


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
    answer(model, known, [9.0, 12.0, 17.0], steps=5)
    assert batches == [2] * 4 + [3] * 5


@pytest.mark.parametrize("side", [8, 12, 20])
def test_a_code_is_one_vector_whatever_the_size(side: int) -> None:
    encoder = CodeEncoder(CHANNELS, (8, 16, 16), 12)
    assert encoder(torch.zeros(2, CHANNELS, side, side)).shape == (2, 12)


def test_it_is_as_large_as_what_it_is_compared_with() -> None:
    with torch.device("meta"):
        model = DiffusionAutoencoder(DiffusionAutoencoderConfig())
        preset = LatentInterpolator(PAPER)
    one, other = (sum(p.numel() for p in m.parameters()) for m in (model, preset))
    assert one == pytest.approx(other, rel=0.05)
