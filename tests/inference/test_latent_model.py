"""What users get of a `LatentInterpolator`, whatever its weights are."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from calid.inference.latent_model import Answer, LatentModel
from calid.inference.runtime import choose_runtime
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.latent_interpolator import DEFAULT, PAPER, LatentInterpolator

pytestmark = pytest.mark.usefixtures("precision")

CHANNELS = 3
SPACING = (1.4, 1.6)
POSITIONS = np.array([0.0, 10.0, 20.0, 30.0])
MEAN, CRISP = Answer(dial=0.0), Answer(dial=1.0, steps=3)


def model(preset: str = "default") -> LatentModel:
    return LatentModel(*networks(preset), choose_runtime("cpu"))


@cache
def networks(preset: str) -> tuple[Autoencoder, LatentInterpolator]:
    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig(CHANNELS, (8, 8), (1, 1), (1, 1)))
    config = {"default": DEFAULT, "paper": PAPER}[preset]
    sizes = {"channels": CHANNELS, "widths": (8, 16), "denoiser": (16, 8), "embedding": 16}
    interpolator = LatentInterpolator(dataclasses.replace(config, **sizes))  # type: ignore[arg-type]
    for network in (autoencoder, interpolator):
        for parameter in network.eval().requires_grad_(False).parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return autoencoder, interpolator


@cache
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 1, (4, 5, 6))
    return np.kron(coarse, np.ones((1, 8, 8)))[:, :37, :45].astype(np.float32)


def drawn(targets: list[float], answer: Answer, preset: str = "default") -> np.ndarray:
    return model(preset).between(images(), POSITIONS, np.array(targets), SPACING, answer)


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("samples", [0, 2])
def test_an_answer_has_the_pixels_of_the_image(preset: str, samples: int) -> None:
    found = drawn([2.5, 5.0, 12.0], Answer(samples=samples, steps=2), preset)
    assert found.shape == (max(samples, 1), 3, 37, 45)
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1.5
    assert samples < 2 or not np.array_equal(*found)


def test_the_dial_is_a_straight_line_in_pixels() -> None:
    mean, half, crisp = (drawn([5.0], dataclasses.replace(CRISP, dial=d)) for d in (0, 0.5, 1))
    assert np.abs(crisp - mean).max() > 0.01
    inside = (np.minimum(mean, crisp) > 0) & (np.maximum(mean, crisp) < 1.5)
    np.testing.assert_allclose(half[inside], ((mean + crisp) / 2)[inside], atol=1e-4)


@pytest.mark.parametrize("answer", [MEAN, CRISP, Answer(samples=1, steps=2)])
def test_near_an_acquired_slice_the_answer_is_that_slice(answer: Answer) -> None:
    errors = [np.abs(drawn([10 - d], answer)[0, 0] - images()[1]).max() for d in (4.0, 0.3, 0.01)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_a_gap_is_answered_by_itself_and_its_targets_are_no_others_business() -> None:
    alone, among = drawn([12.0], CRISP), drawn([5.0, 12.0, 17.0, 25.0], CRISP)
    np.testing.assert_allclose(among[:, 1], alone[:, 0], atol=2e-2)
    assert np.array_equal(drawn([12.0], CRISP), alone), "the seed decides"
    other = drawn([12.0], dataclasses.replace(CRISP, seed=1))
    assert not np.array_equal(other, alone)


def test_slices_beyond_the_next_ones_do_not_matter() -> None:
    changed = images().copy()
    changed[3] = 0.5
    found = model().between(changed, POSITIONS, np.array([5.0]), SPACING, MEAN)
    assert np.array_equal(found, drawn([5.0], MEAN))
    changed[2] = 0.5
    found = model().between(changed, POSITIONS, np.array([5.0]), SPACING, MEAN)
    assert not np.array_equal(found, drawn([5.0], MEAN))


def test_the_paper_answers_with_the_nearest_of_its_midpoints() -> None:
    answer = Answer(samples=1, steps=2)
    two = drawn([4.9, 5.1], answer, "paper")
    assert np.array_equal(two[0, 0], two[0, 1]), "both are nearest to the middle"
    three = drawn([2.4, 5.0, 7.6], answer, "paper")
    assert not np.array_equal(three[0, 0], three[0, 2])


def test_the_ceiling_is_the_autoencoder_on_own_pixels() -> None:
    there = model().recode(images(), SPACING)
    assert there.shape == images().shape
    fine = model().recode(images(), (0.7, 0.7))
    assert fine.shape == images().shape
    assert not np.array_equal(there, fine)
