from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from calid.errors import UsageError, WeightsError
from calid.inference.load import load_model
from calid.inference.model import Model, Sampling
from calid.inference.runtime import choose_device
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.store import save_autoencoder


@pytest.fixture(scope="module")
def model(precision: torch.dtype) -> Model:
    """The released networks in either precision, and so every test that asks for them."""
    found = load_model(device="cpu")
    assert found.runtime.precision == precision
    return found


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    from calid.data.phantom import HeartPhantom

    stack = HeartPhantom(1).acquire(slices=4, start=15.0, field_of_view=120.0)
    return (stack.data[0] / np.percentile(stack.data, 99.5)).clip(0, 1.5).astype(np.float32)


PLACES = np.arange(4) * 10.0
SPACING = (1.5, 1.5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_slices_whatever_else_is_generated(model, images):
    sampling = Sampling(samples=1, steps=2, seed=5)
    alone = model.between(images, PLACES, np.array([15.0]), SPACING, sampling)
    among = model.between(images, PLACES, np.array([5.0, 15.0, 25.0]), SPACING, sampling)
    np.testing.assert_allclose(alone[0, 0], among[0, 1], atol=1e-5)
    other = model.between(images, PLACES, np.array([15.0]), SPACING, Sampling(1, 2, 1.0, 6))
    assert np.abs(other - alone).max() > 0.01


@pytest.mark.slow
def test_samples_differ_and_their_mean_is_nearer_to_the_regression(model, images):
    target = np.array([15.0])
    mean = model.between(images, PLACES, target, SPACING, Sampling(0))
    samples = model.between(images, PLACES, target, SPACING, Sampling(4, 4))
    single = np.sqrt(((samples - mean) ** 2).mean())
    averaged = np.sqrt(((samples.mean(0) - mean[0]) ** 2).mean())
    assert averaged < 0.75 * single
    assert single > 0.005


@pytest.mark.slow
def test_the_answer_tends_to_the_acquired_slice(model, images):
    close = model.between(images, PLACES, np.array([10.001, 19.999]), SPACING, Sampling(1, 2))
    np.testing.assert_allclose(close[0, 0], images[1], atol=0.01)
    np.testing.assert_allclose(close[0, 1], images[2], atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_odd_sizes_and_pixels_come_back_on_their_own_grid(preset, images):
    odd = images[:3, :45, :37]
    answer = load_model(preset, "cpu").between(
        odd, PLACES[:3], np.array([2.5, 5.0, 7.5]), (1.9, 1.2), Sampling(1, 2)
    )
    assert answer.shape == (1, 3, 45, 37)
    assert np.isfinite(answer).all()
    assert answer.min() >= 0
    assert answer.max() <= 1.5


@pytest.mark.slow
def test_the_network_beats_linear_on_a_real_gap_of_a_phantom(model):
    from calid.data.phantom import HeartPhantom

    stack = HeartPhantom(101).acquire(gap=10.0, noise=0.0)
    images = (stack.data[0] / np.percentile(stack.data, 99.5)).clip(0, 1.5).astype(np.float32)
    kept, hidden = images[::2], images[1:-1:2]
    places = np.arange(len(images)) * 10.0
    targets = places[1:-1:2]
    answer = model.between(kept, places[::2], targets, SPACING, Sampling(0))[0]
    count = len(targets)
    linear = (kept[:count] + kept[1 : count + 1]) / 2
    ours, theirs = (np.mean((x - hidden[:count]) ** 2) for x in (answer, linear))
    assert ours < theirs


@pytest.mark.parametrize(
    "options", [{"samples": -1}, {"steps": 0}, {"temperature": -0.1}, {"temperature": float("nan")}]
)
def test_sampling_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match=f"--{next(iter(options))}"):
        Sampling(**options)


@pytest.mark.slow
def test_a_stack_with_samples_gives_uncertainty_only_where_slices_are_generated(model, small_stack):
    volume = model.reconstruct(small_stack, factor=2, samples=2, steps=1, uncertainty=True)
    assert volume.uncertainty.shape == volume.data.shape
    assert not volume.uncertainty[:, ::2].any()
    assert volume.uncertainty[:, 1::2].mean() > 0
    with pytest.raises(UsageError, match="2 samples"):
        model.reconstruct(small_stack, samples=1, uncertainty=True)


def test_unknown_devices_are_refused():
    with pytest.raises(UsageError):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="No CUDA"):
            choose_device("cuda")


def test_an_interpolator_of_other_latents_is_refused(tmp_path: Path) -> None:
    autoencoder = Autoencoder(AutoencoderConfig(5, (8, 8), (1, 1), (1, 1)))
    save_autoencoder(autoencoder, tmp_path / "autoencoder.safetensors", {})
    with pytest.raises(WeightsError, match="8 channels; those of the autoencoder have 5"):
        load_model("default", "cpu", weights=tmp_path)
