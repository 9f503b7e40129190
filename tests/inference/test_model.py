"""What users get between the slices, whatever the weights are."""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_model import reconstructed, tiny_model

from calid.data.phantom import HeartPhantom
from calid.errors import UsageError, WeightsError
from calid.inference.model import Model, dialled, load_model
from calid.inference.options import Answer
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.interpolator import Encoded, InterpolatorConfig
from calid.models.motion import ONE_FRAME, Frames
from calid.models.store import save_autoencoder
from calid.runtime import choose_device

pytestmark = pytest.mark.usefixtures("precision")

SPACING = (1.4, 1.6)
POSITIONS = np.array([0.0, 10.0, 20.0, 30.0])
MEAN, CRISP = Answer(dial=0.0), Answer(dial=1.0, steps=3)


@cache
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 1, (4, 5, 6))
    return np.kron(coarse, np.ones((1, 8, 8)))[:, :37, :45].astype(np.float32)


def drawn(targets: list[float], answer: Answer, preset: str = "default") -> np.ndarray:
    return tiny_model(preset).between(images(), POSITIONS, np.array(targets), SPACING, answer)


@pytest.mark.parametrize(("preset", "samples"), [("default", 0), ("default", 2), ("paper", 2)])
def test_an_answer_has_the_pixels_of_the_image(preset: str, samples: int) -> None:
    found = drawn([2.5, 5.0, 12.0], Answer(samples=samples, steps=2), preset)
    assert found.shape == (max(samples, 1), 3, 37, 45)
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1.5
    assert samples < 2 or not np.array_equal(*found)


def test_the_dial_brings_detail_first_and_then_structure() -> None:
    config = tiny_model().interpolator.config
    knee = config.dial
    dials = (0, knee / 2, knee, (1 + knee) / 2, 1)
    shown = [drawn([5.0], dataclasses.replace(CRISP, dial=d)) for d in dials]
    mean, half, detailed, most, crisp = shown
    steps = [b - a for a, b in itertools.pairwise(shown)]
    unclipped = (np.min(shown, 0) > 0) & (np.max(shown, 0) < 1.5)
    for one, other in (((mean + detailed) / 2, half), ((detailed + crisp) / 2, most)):
        np.testing.assert_allclose(one[unclipped], other[unclipped], atol=1e-4)

    assert np.abs(steps[0]).max() > 0.003
    flat, gate = torch.full((1, 24, 24), 0.1), torch.full((1, 1, 1), 0.8)
    fine = 0.1 * (-1) ** torch.arange(24.0).expand(1, 24, 24)
    for given, comes_first in ((flat, False), (fine, True)):
        some, all_of_it = (dialled(given, dial, config, gate).abs().mean() for dial in (knee, 1.0))
        assert all_of_it > 0.03
        assert bool(some > 0.03) is comes_first


def test_where_the_gap_narrows_the_crisp_answer_keeps_more_than_the_default() -> None:
    config, deviation = InterpolatorConfig(), torch.randn(2, 24, 24)
    gate = torch.tensor([0.9, 0.3])[:, None, None]
    kept = [
        (found[1].norm() / found[0].norm() / (deviation[1].norm() / deviation[0].norm())).item()
        for found in (dialled(deviation, dial, config, gate) for dial in (config.dial, 1.0))
    ]
    assert kept == pytest.approx([1 / 9, 1 / 3], rel=0.1)


def test_detail_of_the_crisp_film_moves_slowly_and_that_of_the_default_as_it_is_given() -> None:
    config, frames = InterpolatorConfig(mixing=(0.04, 0.12)), Frames(20)
    still = torch.randn(1, 2, 24, 24).expand(20, -1, -1, -1)
    given = still + torch.randn(20, 2, 24, 24)
    gate = torch.full((40, 1, 1), 0.8)

    def shown(deviation: torch.Tensor, dial: float, frames: Frames) -> torch.Tensor:
        return dialled(deviation.flatten(0, 1), dial, config, gate, frames).unflatten(0, (20, 2))

    torch.testing.assert_close(shown(still, 1.0, frames), shown(still, 1.0, ONE_FRAME))
    alone, together = (shown(given, 1.0, f) for f in (ONE_FRAME, frames))
    assert together.diff(dim=0).norm() < 0.6 * alone.diff(dim=0).norm()
    torch.testing.assert_close(together.mean(0), alone.mean(0))
    default = [shown(given, config.dial, f) for f in (ONE_FRAME, frames)]
    assert torch.equal(*default)


@pytest.mark.parametrize("answer", [MEAN, CRISP, Answer(samples=1, steps=2)])
def test_near_an_acquired_slice_the_answer_is_that_slice(answer: Answer) -> None:
    errors = [np.abs(drawn([10 - d], answer)[0, 0] - images()[1]).max() for d in (4.0, 0.3, 0.01)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02  # bfloat16 rounds


def test_a_gap_is_answered_by_itself_and_its_targets_are_no_others_business() -> None:
    alone, among = drawn([12.0], CRISP), drawn([5.0, 12.0, 17.0, 25.0], CRISP)
    np.testing.assert_allclose(among[:, 1], alone[:, 0], atol=2e-2)
    assert np.array_equal(drawn([12.0], dataclasses.replace(CRISP, seed=1)), alone), "no noise"
    once, again, other = (drawn([12.0], Answer(samples=1, seed=s, steps=2)) for s in (0, 0, 1))
    assert np.array_equal(once, again), "the seed decides"
    assert not np.array_equal(once, other)


def test_slices_beyond_the_next_ones_do_not_matter() -> None:
    changed = images().copy()
    changed[3] = 0.5
    found = tiny_model().between(changed, POSITIONS, np.array([5.0]), SPACING, MEAN)
    assert np.array_equal(found, drawn([5.0], MEAN))
    changed[2] = 0.5
    found = tiny_model().between(changed, POSITIONS, np.array([5.0]), SPACING, MEAN)
    assert not np.array_equal(found, drawn([5.0], MEAN))


def test_the_paper_answers_with_the_nearest_of_its_midpoints() -> None:
    answer = Answer(samples=1, steps=2)
    two = drawn([4.9, 5.1], answer, "paper")
    assert np.array_equal(two[0, 0], two[0, 1]), "both are nearest to the middle"
    three = drawn([2.4, 5.0, 7.6], answer, "paper")
    assert not np.array_equal(three[0, 0], three[0, 2])


def test_the_ceiling_is_the_autoencoder_on_own_pixels() -> None:
    there = tiny_model().recode(images(), SPACING)
    assert there.shape == images().shape
    fine = tiny_model().recode(images(), (0.7, 0.7))
    assert fine.shape == images().shape
    assert not np.array_equal(there, fine)


def test_what_is_not_asked_for_is_as_the_weights_say() -> None:
    model = tiny_model()
    config = model.interpolator.config
    found = model.resolved(Answer())
    assert (found.dial, found.steps) == (config.dial, config.transport_steps)
    sample = model.resolved(Answer(samples=1))
    assert (sample.dial, sample.steps) == (None, config.sampler_steps)
    assert model.resolved(Answer(dial=0.2, steps=5)) == Answer(dial=0.2, steps=5)
    with pytest.raises(UsageError, match="only draws samples"):
        tiny_model("paper").resolved(Answer())


def test_samples_differ_beside_an_acquired_slice_as_they_did_before_its_pixels_were_pasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sample(known: Encoded, noise: torch.Tensor, steps: int) -> torch.Tensor:
        return known.mean + noise.mean()

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return 0.75 + 0.1 * F.interpolate(latents[:, :1].tanh(), scale_factor=4.0)[:, 0]

    monkeypatch.setattr(tiny_model().interpolator, "sample", sample)
    monkeypatch.setattr(Model, "decode", lambda self, latents: decode(latents))
    one, other = drawn([0.5, 5.0], Answer(samples=2, steps=1))
    near, middle = np.abs(one - other).mean((1, 2))
    assert near == pytest.approx(middle, rel=0.3)
    assert near > 1e-3


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        ({"samples": -1}, "`samples`"),
        ({"steps": 0}, "`steps`"),
        ({"seed": -1}, "`seed`"),
        ({"dial": -0.1}, "`dial`"),
        ({"dial": 1.1}, "`dial`"),
        ({"dial": float("nan")}, "`dial`"),
        ({"dial": 0.5, "samples": 1}, "`dial` and `samples`"),
    ],
)
def test_answers_that_there_are_not_are_refused(options: dict[str, float], subject: str) -> None:
    with pytest.raises(UsageError) as caught:
        Answer(**options)  # type: ignore[arg-type]
    assert caught.value.subject == subject


def test_a_stack_with_samples_gives_uncertainty_only_where_slices_are_generated(small_stack):
    model = tiny_model()
    volume = reconstructed(model, small_stack, factor=2, samples=2, steps=1, uncertainty=True)
    assert volume.uncertainty is not None
    assert volume.uncertainty.shape == volume.data.shape
    assert not volume.uncertainty[:, ::2].any()
    assert volume.uncertainty[:, 1::2].mean() > 0
    with pytest.raises(UsageError, match="2 samples"):
        reconstructed(model, small_stack, samples=1, uncertainty=True)


def test_networks_that_answer_with_no_numbers_are_refused(small_stack, monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(model, "decode", lambda z, at_once=8: torch.full((len(z), 48, 48), np.nan))
    with pytest.raises(WeightsError, match="not numbers"):
        reconstructed(model, small_stack, factor=2, dial=0)


def test_unknown_devices_are_refused():
    with pytest.raises(UsageError):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="No CUDA"):
            choose_device("cuda")


def test_an_interpolator_of_other_latents_is_refused(tmp_path: Path) -> None:
    autoencoder = Autoencoder(AutoencoderConfig(5, (8, 8), (1, 1), (1, 1)))
    save_autoencoder(autoencoder, tmp_path / "autoencoder.safetensors", {})
    with pytest.raises(WeightsError, match="channels; those of the autoencoder have 5"):
        load_model("default", "cpu", weights=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("answer", [MEAN, Answer(), Answer(samples=4, steps=4)], ids=str)
def test_the_released_networks_beat_linear_on_a_gap_of_a_phantom(answer: Answer) -> None:
    stack = HeartPhantom(101).acquire(gap=10.0, noise=0.0, field_of_view=144.0)
    shown = (stack.data[0] / np.percentile(stack.data, 99.5)).clip(0, 1.5).astype(np.float32)
    kept, hidden, places = shown[::2], shown[1:-1:2], stack.positions
    count = len(kept) - 1
    found = load_model(device="cpu").between(
        kept, places[::2], places[1:-1:2][:count], stack.pixel_spacing, answer
    )
    linear = (kept[:-1] + kept[1:]) / 2
    ours, theirs = (np.mean((x - hidden[:count]) ** 2) for x in (found.mean(0), linear))
    assert ours < theirs
