"""Both presets: what `fill` promises, and their files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from calid.errors import UsageError, WeightsError
from calid.models.context import Acquired, nearest_context, register
from calid.models.correspondence import carry
from calid.models.interpolator import (
    Interpolator,
    InterpolatorConfig,
    LatentFiller,
    PaperConfig,
    PaperInterpolator,
)
from calid.models.motion import warp
from calid.models.store import load_interpolator, new_interpolator, save_interpolator

pytestmark = pytest.mark.usefixtures("inside")

SIZES = {"channels": 3, "widths": (8, 16, 16)}
POSITIONS = np.array([0.0, 10.0, 22.0, 30.0])
TARGETS = np.array([13.0, 16.0, 20.0])  # all in the second gap


def perturbed(model: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(scope="module")
def model() -> Interpolator:
    torch.manual_seed(0)
    network = Interpolator(InterpolatorConfig(**SIZES)).eval()
    perturbed(network)
    return network


@pytest.fixture(scope="module")
def paper() -> PaperInterpolator:
    torch.manual_seed(0)
    network = PaperInterpolator(PaperConfig(**SIZES)).eval()
    perturbed(network)
    return network


def fill(
    network: LatentFiller,
    acquired: Acquired,
    positions: np.ndarray,
    targets: np.ndarray,
    draws: Draws,
    samples: int,
    steps: int,
    temperature: float,
) -> Tensor:
    """``samples`` answers stacked; with none, the conditional mean."""
    source = draws if samples else None
    return torch.stack(
        [
            network.fill(acquired, positions, targets, source, steps, temperature).latents
            for _ in range(max(samples, 1))
        ]
    )


def encode(images: Tensor) -> Tensor:
    """In place of an autoencoder: three of sixteen pixels, to unit variance."""
    return 12**0.5 * (F.pixel_unshuffle(images, 4)[:, [0, 6, 11]] - 0.5)


def slices(seed: int = 0) -> Acquired:
    """Noise: motion is found in it, of a few pixels, where there is none."""
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    return Acquired.of(images, encode)


class Draws:
    """Seeded standard normal noise that counts how often it is asked."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.given: list[Tensor] = []

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        self.given.append(torch.randn(shape, generator=self.generator))
        return self.given[-1]


def test_without_samples_the_answer_is_the_mean(model: Interpolator) -> None:
    draws = Draws()
    filled = fill(model, slices(), POSITIONS, TARGETS, draws, samples=0, steps=2, temperature=1.0)
    assert filled.shape == (1, 3, 3, 8, 8)
    with torch.no_grad():
        mean = model.align(slices(), nearest_context(POSITIONS, TARGETS))[0].mean
    torch.testing.assert_close(filled[0], mean, rtol=0, atol=0)
    assert draws.given == [], "the mean needs no noise"


def test_the_same_noise_gives_the_same_samples(model: Interpolator) -> None:
    first, again, other = (
        fill(model, slices(), POSITIONS, TARGETS, Draws(seed), samples=2, steps=2, temperature=1.0)
        for seed in (0, 0, 1)
    )
    assert first.shape == (2, 3, 3, 8, 8)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert float((first - other).abs().mean()) > 0.1


def test_samples_differ_from_each_other_and_from_the_mean(model: Interpolator) -> None:
    samples = fill(
        model, slices(), POSITIONS, TARGETS, Draws(), samples=3, steps=2, temperature=1.0
    )
    mean = fill(model, slices(), POSITIONS, TARGETS, Draws(), samples=0, steps=2, temperature=1.0)
    for a, b in ((samples[0], samples[1]), (samples[1], samples[2]), (samples[0], mean[0])):
        assert float((a - b).abs().mean()) > 0.1
    alone = fill(model, slices(), POSITIONS, TARGETS, Draws(), samples=1, steps=2, temperature=1.0)
    torch.testing.assert_close(alone[0], samples[0], rtol=0, atol=0)


def test_temperature_zero_is_one_deterministic_answer(model: Interpolator) -> None:
    first, other = (
        fill(model, slices(), POSITIONS, TARGETS, Draws(seed), samples=2, steps=3, temperature=0.0)
        for seed in (0, 1)
    )
    torch.testing.assert_close(first, other, rtol=0, atol=0)
    torch.testing.assert_close(first[0], first[1], rtol=0, atol=0)


def test_all_targets_of_a_gap_share_their_noise(model: Interpolator) -> None:
    draws = Draws()
    samples = fill(model, slices(), POSITIONS, TARGETS, draws, samples=2, steps=2, temperature=1.0)
    assert [tuple(noise.shape) for noise in draws.given] == [(1, 3, 8, 8)] * 2
    for k in range(len(TARGETS)):
        alone = fill(
            model, slices(), POSITIONS, TARGETS[[k]], Draws(), samples=2, steps=2, temperature=1.0
        )
        torch.testing.assert_close(alone[:, 0], samples[:, k], rtol=1e-4, atol=1e-4)


def test_one_step_of_an_untrained_denoiser_adds_the_scaled_noise() -> None:
    # Zero velocity leaves the noise as it is: mean + residual size * noise.
    untrained, draws = Interpolator(InterpolatorConfig(**SIZES, residual=0.5)), Draws()
    filled = fill(untrained, slices(), POSITIONS, TARGETS, draws, 1, steps=3, temperature=0.7)
    context = nearest_context(POSITIONS, TARGETS)
    with torch.no_grad():
        mean = untrained.align(slices(), context)[0].mean
    size = 0.5 * context.gate[:, None, None, None]
    torch.testing.assert_close(filled[0], mean + size * 0.7 * draws.given[0], rtol=1e-4, atol=1e-4)


def test_close_to_an_acquired_slice_samples_are_that_slice(model: Interpolator) -> None:
    acquired = slices()
    for target, nearest in ((10.001, 1), (21.999, 2)):
        where = np.array([target])
        assert float(model.residual_size(nearest_context(POSITIONS, where))) < 1e-3
        filled = model.fill(acquired, POSITIONS, where, Draws(), 2, 1.0)
        assert filled.around is not None
        torch.testing.assert_close(filled.latents[0], acquired.latents[nearest], rtol=0, atol=0.01)
        carried = filled.around.blended[0]
        torch.testing.assert_close(carried, acquired.images[nearest], rtol=0, atol=0.01)
    middle = nearest_context(POSITIONS, np.array([16.0]))
    assert float(model.residual_size(middle)) == pytest.approx(0.9 * 6 / np.hypot(6, 5))


def test_an_untrained_network_blends_registered_latents_by_inverse_squared_distance() -> None:
    untrained, acquired = Interpolator(InterpolatorConfig(**SIZES)), slices()
    filled = untrained.fill(acquired, POSITIONS, np.array([13.0]), None, 1, 1.0)
    seen = register(acquired, nearest_context(POSITIONS, np.array([13.0])))
    assert seen.context.distance.tolist() == [[-13.0, -3.0, 9.0, 17.0, -3.0, 9.0]]
    weights = seen.context.distance[0] ** -2.0
    arrived = warp(seen.latents[seen.context.index[0]], seen.displacement[0])
    weights = (weights / weights.sum())[:, None, None, None]
    expected = (weights * arrived).sum(0)
    torch.testing.assert_close(filled.latents[0], expected, rtol=1e-4, atol=1e-4)
    still = seen.latents[seen.context.index[0]]
    unregistered = (weights * still).sum(0)
    assert float((expected - unregistered).abs().mean()) > 0.02


def test_a_denser_grid_agrees_where_it_meets_a_coarser_one(model: Interpolator) -> None:
    coarse = fill(model, slices(), POSITIONS, TARGETS, Draws(), 1, steps=2, temperature=1.0)
    many = np.arange(11.0, 22.0)
    dense = fill(model, slices(), POSITIONS, many, Draws(), 1, steps=2, temperature=1.0)
    torch.testing.assert_close(
        dense[:, np.searchsorted(many, TARGETS)], coarse, rtol=1e-4, atol=1e-4
    )


def test_the_default_preset_says_what_is_known_beside_what_was_drawn(model: Interpolator) -> None:
    context = nearest_context(POSITIONS, TARGETS)
    with torch.no_grad():
        aligned, _ = model.align(slices(), context)
    for draws in (None, Draws()):
        filled = model.fill(slices(), POSITIONS, TARGETS, draws, 2, 1.0)
        around, mean = filled.around, filled.latents if draws is None else filled.mean
        assert around is not None
        torch.testing.assert_close(mean, aligned.mean, rtol=0, atol=0)
        assert (filled.mean is None) == (draws is None)
        assert torch.equal(filled.latents, aligned.mean) == (draws is None)
        torch.testing.assert_close(around.gate[:, 0, 0, 0], context.gate, rtol=0, atol=0)
        assert around.moved.shape == (3, 2, 32, 32)


def test_surroundings_are_the_nearest_slices_registered(model: Interpolator) -> None:
    acquired = slices()
    filled = model.fill(acquired, POSITIONS, TARGETS, None, 1, 1.0)
    around = filled.around
    assert around is not None
    for k, target in enumerate(TARGETS):
        expected = torch.from_numpy(POSITIONS[1:3] - target).float()
        torch.testing.assert_close(around.distance[k], expected, rtol=0, atol=1e-5)
    unmoved = acquired.images[1:3, 0].expand_as(around.moved)
    assert float((around.moved - unmoved).abs().mean()) > 1e-3
    # Moved as register moved them, but finer, and less far.
    seen = register(acquired, nearest_context(POSITIONS, TARGETS))
    moved = seen.images[-6:, 0].view(3, 2, 32, 32)
    assert float((around.moved - moved).abs().mean()) > 1e-3
    wanted, found = (moved - unmoved).flatten(), (around.moved - unmoved).flatten()
    assert float(torch.corrcoef(torch.stack([wanted, found]))[0, 1]) > 0.6


def test_carried_images_are_made_of_acquired_pixels(model: Interpolator) -> None:
    seen = register(slices(), nearest_context(POSITIONS, TARGETS))
    with torch.no_grad():
        aligned = model.correspondence(seen)
        one = carry(seen, aligned)
        two = carry(dataclasses.replace(seen, images=2 * seen.images), aligned)
    torch.testing.assert_close(two, 2 * one, rtol=1e-4, atol=1e-4)
    assert 0 <= float(one.min()) <= float(one.max()) <= 1


def test_the_moved_slices_are_encoded_by_the_encoder_of_the_acquired_ones(
    model: Interpolator,
) -> None:
    asked: list[tuple[int, ...]] = []

    def noted(images: Tensor) -> Tensor:
        asked.append(tuple(images.shape))
        return encode(images)

    acquired = Acquired.of(slices().images, noted)
    one = model.fill(acquired, POSITIONS, TARGETS, None, 2, 1.0).latents
    assert asked == [(4, 1, 32, 32), (6, 1, 32, 32)]
    other = dataclasses.replace(acquired, encode=lambda images: 1 - encode(images))
    changed = model.fill(other, POSITIONS, TARGETS, None, 2, 1.0).latents
    assert float((changed - one).abs().mean()) > 0.05


def halve(paper: PaperInterpolator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace the network by the average; returns the pairs of every call."""
    pairs: list[int] = []

    def average(below: Tensor, above: Tensor, noise: Tensor, steps: int) -> Tensor:
        assert noise.shape == below.shape
        pairs.append(len(below))
        return (below + above) / 2

    monkeypatch.setattr(paper, "midpoint", average)
    return pairs


def places(filled: Tensor, latents: Tensor) -> list[float]:
    """Where on the line from slice 1 to slice 2 every target lies."""
    line = latents[2] - latents[1]
    shares = ((filled - latents[1]) * line).sum((1, 2, 3)) / line.square().sum()
    return [float(s) for s in shares]


def test_eighths_of_a_gap_take_three_levels_of_midpoints(
    paper: PaperInterpolator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, draws = halve(paper, monkeypatch), Draws()
    targets = 10.0 + 12.0 * np.arange(1, 8) / 8
    filled = fill(paper, slices(), POSITIONS, targets, draws, samples=1, steps=2, temperature=1.0)
    assert pairs == [1, 2, 4]
    assert len(draws.given) == 3
    np.testing.assert_allclose(places(filled[0], slices().latents), np.arange(1, 8) / 8, atol=1e-5)


def test_sevenths_take_the_nearest_eighths(
    paper: PaperInterpolator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = halve(paper, monkeypatch)
    targets = 10.0 + 12.0 * np.arange(1, 7) / 7
    filled = fill(paper, slices(), POSITIONS, targets, Draws(), samples=1, steps=2, temperature=1.0)
    assert pairs == [1, 2, 4]
    expected = np.array([1, 2, 3, 5, 6, 7]) / 8
    np.testing.assert_allclose(places(filled[0], slices().latents), expected, atol=1e-5)


def test_one_target_in_the_middle_is_one_midpoint(paper: PaperInterpolator) -> None:
    draws, acquired = Draws(), slices()
    latents = acquired.latents
    filled = fill(paper, acquired, POSITIONS, np.array([16.0]), draws, 1, steps=3, temperature=1.0)
    with torch.no_grad():
        expected = paper.midpoint(latents[1:2], latents[2:3], draws.given[0], 3)
    assert len(draws.given) == 1
    torch.testing.assert_close(filled[0], expected, rtol=1e-4, atol=1e-4)


def test_what_was_generated_becomes_context(paper: PaperInterpolator) -> None:
    # Quarters: the middle of the first level is an end of the second level's pairs.
    draws, acquired = Draws(), slices()
    latents = acquired.latents
    filled = fill(
        paper, acquired, POSITIONS, np.array([13.0, 16.0, 19.0]), draws, 1, steps=2, temperature=1.0
    )[0]
    with torch.no_grad():
        middle = paper.midpoint(latents[1:2], latents[2:3], draws.given[0], 2)
        quarter = paper.midpoint(latents[1:2], middle, draws.given[1], 2)
    torch.testing.assert_close(filled[1:2], middle, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(filled[0:1], quarter, rtol=1e-3, atol=1e-3)


def test_the_paper_preset_samples_like_the_default(paper: PaperInterpolator) -> None:
    def sample(seed: int, samples: int, temperature: float) -> Tensor:
        return fill(paper, slices(), POSITIONS, TARGETS, Draws(seed), samples, 2, temperature)

    two = sample(0, 2, 1.0)
    assert two.shape == (2, 3, 3, 8, 8)
    torch.testing.assert_close(two, sample(0, 2, 1.0), rtol=0, atol=0)
    assert float((two[0] - two[1]).abs().mean()) > 0.1
    torch.testing.assert_close(sample(0, 1, 0.0), sample(1, 1, 0.0), rtol=0, atol=0)


def test_the_paper_preset_sees_only_the_two_slices_of_the_gap(paper: PaperInterpolator) -> None:
    def filled(latents: Tensor) -> Tensor:
        acquired = dataclasses.replace(slices(), latents=latents)
        return fill(paper, acquired, POSITIONS, TARGETS, Draws(), 1, steps=2, temperature=1.0)

    latents = slices().latents.clone()
    before = filled(latents)
    latents[[0, 3]] = 50.0
    after = filled(latents)
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    latents[1] += 0.5
    assert float((filled(latents) - after).abs().mean()) > 0.01


def test_the_paper_preset_aligns_nothing(paper: PaperInterpolator) -> None:
    acquired = dataclasses.replace(slices(), images=torch.empty(0))
    filled = paper.fill(acquired, POSITIONS, TARGETS, Draws(), 2, 1.0)
    assert filled.around is None


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_saving_and_loading_changes_nothing_but_float16_rounding(
    tmp_path: Path, preset: str
) -> None:
    torch.manual_seed(0)
    network = new_interpolator(preset, **SIZES).eval()
    perturbed(network)
    path = tmp_path / f"{preset}.safetensors"
    save_interpolator(network, path, {"psnr": 25.0})
    again = load_interpolator(path, preset)
    assert type(again) is type(network)
    assert again.config == network.config
    assert not again.training
    for key, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value.half().float(), rtol=0, atol=0)
    first, loaded = (
        fill(m, slices(), POSITIONS, TARGETS, Draws(), samples=1, steps=2, temperature=1.0)
        for m in (network, again)
    )
    assert float((first - loaded).abs().mean()) < 0.02 * float(first.std())


def test_a_file_of_the_other_preset_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_interpolator(new_interpolator("paper", **SIZES), path, {})
    with pytest.raises(WeightsError, match="This file holds 'paper', not 'default'"):
        load_interpolator(path, "default")


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="'sharp' is not a preset"):
        new_interpolator("sharp")


def test_the_paper_preset_refuses_to_give_a_mean(paper: PaperInterpolator) -> None:
    with pytest.raises(UsageError, match="no conditional mean"):
        paper.fill(slices(), POSITIONS, TARGETS, None, 2, 1.0)
