"""The same seed gives the same heart, however the work is shared out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import tiny_model

from calid.data.phantom import HeartPhantom
from calid.inference.model import Model
from calid.inference.options import Answer
from calid.models.interpolator import Neighbours
from calid.runtime import choose_runtime

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
"""Of the window, in float32: as docs/reference/determinism.md says."""

NOISE = [0.527732, 0.656372, 0.929637]
"""The first numbers of seed 0: what is released can be made again by later versions."""

PLACES = np.arange(3) * 10.0
TARGETS = np.linspace(0.0, 10.0, 18)[1:-1]  # 16 in one gap
SPACING = (1.5, 1.5)
WAYS = {"default": Answer(seed=3), "sample": Answer(samples=1, steps=2, seed=3)}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(precision="float32")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    stack = HeartPhantom(1).acquire(slices=3, start=20.0, field_of_view=48.0)
    return (stack.data[0] / np.percentile(stack.data, 99.5)).clip(0, 1.5).astype(np.float32)


@pytest.fixture(scope="module", params=WAYS)
def together(request, model, images) -> tuple[np.ndarray, Answer]:
    """All targets at once, in one thread."""
    answer = WAYS[request.param]
    with threads(1):
        return model.between(images, PLACES, TARGETS, SPACING, answer), answer


class threads:  # noqa: N801
    """Torch with so many threads, for as long as the block lasts."""

    def __init__(self, number: int) -> None:
        self.number, self.before = number, torch.get_num_threads()

    def __enter__(self) -> None:
        torch.set_num_threads(self.number)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)


def test_the_number_of_threads_does_not_matter(model, images):
    # Few and small: threads that wait for each other on busy cores are slow.
    answer, found = Answer(samples=1, steps=1, seed=3), []
    for number in (1, 2):
        with threads(number):
            found.append(model.between(images, PLACES, TARGETS[:2], SPACING, answer))
    np.testing.assert_allclose(*found, rtol=0, atol=TOLERANCE)


def test_targets_one_by_one_are_those_of_all_at_once(together, model, images):
    expected, answer = together
    for number in (0, 7, 15):
        found = model.between(images, PLACES, TARGETS[[number]], SPACING, answer)
        np.testing.assert_allclose(found[:, 0], expected[:, number], rtol=0, atol=TOLERANCE)


def test_a_second_run_is_the_same_bit_for_bit_whatever_the_seed_of_torch(together, model, images):
    expected, answer = together
    before = torch.manual_seed(77).get_state()
    with threads(1):
        found = model.between(images, PLACES, TARGETS, SPACING, answer)
    np.testing.assert_array_equal(found, expected)
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_noise_is_drawn_on_the_cpu_for_every_device(name, images, monkeypatch):
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    model = tiny_model()
    model.runtime = choose_runtime(name, "float32")
    networks = (x.to(model.device) for x in (model.autoencoder, model.interpolator))
    model.autoencoder, model.interpolator = networks
    drawn: list[torch.Tensor] = []

    def keep(seen: Neighbours, noise: torch.Tensor, steps: int) -> torch.Tensor:
        assert noise.device.type == name
        drawn.append(noise[0].cpu())
        return noise

    monkeypatch.setattr(model.interpolator, "sample", keep)
    for seed in (0, 0, 1):
        asked = Answer(samples=2, steps=1, seed=seed)
        model.between(images, PLACES, np.array([5.0, 15.0]), SPACING, asked)
    first, again, other = (torch.stack(drawn[i : i + 4]) for i in (0, 4, 8))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.isclose(first, other).any()
    for one, two in ((0, 1), (0, 2), (0, 3), (1, 2)):  # every gap of every sample has its own
        assert not torch.isclose(first[one], first[two]).all()
    np.testing.assert_allclose(first[0].flatten()[:3].tolist(), NOISE, atol=1e-6)
