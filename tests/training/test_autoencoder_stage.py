"""What is particular to stage 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from training.stages import CHANNELS, CPU, SIZE, SIZES, TRAIN, shown, task_of
from training.test_stages import SHORT

from calid.models.autoencoder import Autoencoder, Posterior
from calid.models.store import load_autoencoder
from calid.training.autoencoder import AutoencoderObjective, SliceBatch, measure_latents
from calid.training.loop import fit


class Fixed(Autoencoder):
    """Renders given images from any latent, so that every loss term is known."""

    def __init__(self, shown: Tensor) -> None:
        super().__init__(SIZES)
        self.shown = shown

    def posterior(self, images: Tensor) -> Posterior:
        mean = torch.full((len(images), CHANNELS, 8, 8), 2.0)
        return Posterior(mean, torch.zeros_like(mean))

    def render(self, raw: Tensor) -> Tensor:
        return self.shown


def test_the_terms_of_stage_1_are_absolute_gradient_and_divergence() -> None:
    truth = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    ramp = 0.01 * torch.arange(SIZE).expand(2, 1, SIZE, SIZE)
    noise = torch.zeros(2, CHANNELS, 8, 8)
    terms = AutoencoderObjective(Fixed(truth + ramp))(SliceBatch(truth, noise, None))
    assert float(terms["absolute"]) == pytest.approx(0.01 * 15.5, rel=1e-4)
    assert float(terms["kl"]) == pytest.approx(2.0)  # mean 2: half its square
    objective = AutoencoderObjective(Fixed(truth + ramp), gradient=3.0, divergence=0.1)
    loss = objective(SliceBatch(truth, noise, None))["loss"]
    assert float(loss) == pytest.approx(0.155 + 3 * 0.01 + 0.1 * 2, rel=1e-4)
    perfect = AutoencoderObjective(Fixed(truth))(SliceBatch(truth, noise, None))
    assert float(perfect["absolute"]) == 0


def test_mixed_latents_have_to_give_mixed_images() -> None:
    truth = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    batch = SliceBatch(truth, torch.zeros(2, CHANNELS, 8, 8), 0.25)
    right = AutoencoderObjective(Fixed(0.75 * truth + 0.25 * truth.flip(0)))(batch)
    wrong = AutoencoderObjective(Fixed(truth))(batch)
    assert float(right["absolute"]) < 1e-6 < 0.05 < float(wrong["absolute"])


@pytest.mark.slow
def test_exported_latents_have_mean_0_and_variance_1(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    fit(task_of("autoencoder", path), tmp_path, SHORT, CPU, resume=False)
    model = load_autoencoder(path)
    assert float((model.std - 1).abs().max()) > 0.05, "they were measured"
    images = shown(TRAIN)
    measure_latents(model, images)
    latents = model.encode(images)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(CHANNELS), rtol=0, atol=1e-3)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(CHANNELS), rtol=1e-3, atol=0)


def test_slices_of_a_batch_come_from_the_films_in_window_units(tmp_path: Path) -> None:
    task = task_of("autoencoder", tmp_path / "w")
    mixed = 0
    for step in range(24):
        batch = task.draw(step, 0)
        assert isinstance(batch, SliceBatch)
        assert batch.images.shape == (4, 1, SIZE, SIZE)
        assert batch.noise.shape == (4, CHANNELS, SIZE // 4, SIZE // 4)
        assert 0 <= float(batch.images.min()) <= float(batch.images.max()) <= 1.5
        mixed += batch.share is not None
        assert batch.share is None or 0 <= batch.share <= 1
    assert 1 <= mixed <= 12, "a fifth of the steps mixes latents"
