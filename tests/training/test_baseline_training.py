"""What is particular to the training of learned baselines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training.stages import CHANNELS, CPU, perturb, task_of
from training.test_stages import SHORT

from calid.baselines.learned import LEARNED, load_baseline, new_baseline, save_baseline
from calid.errors import UsageError, WeightsError
from calid.models.interpolator import Neighbours
from calid.training.baselines import DiffusionAutoencoderObjective
from calid.training.interpolator import TupleBatch
from calid.training.loop import fit


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_what_was_trained_is_read_as_this_baseline_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.safetensors"
    fit(task_of(name, path), tmp_path, SHORT, CPU, resume=False)
    loaded = load_baseline(path, name)
    assert not loaded.training
    assert loaded.config.channels == CHANNELS
    (other,) = set(LEARNED) - {name}
    with pytest.raises(WeightsError, match=name):
        load_baseline(path, other)


@pytest.mark.parametrize("name", LEARNED)
def test_every_size_survives_the_file(tmp_path: Path, name: str) -> None:
    sizes = {"semantic": 16} if name == "diffusion-autoencoder" else {}
    model = new_baseline(name, channels=2, widths=(8, 8), embedding=24, **sizes)
    perturb(model, 3)
    save_baseline(model, tmp_path / "w.safetensors", {})
    loaded = load_baseline(tmp_path / "w.safetensors", name)
    assert loaded.config == model.config
    for key, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value.half().float(), rtol=0, atol=0)


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(UsageError, match="regression, diffusion-autoencoder"):
        new_baseline("magic")


@torch.no_grad()
def test_errors_of_the_regression_count_in_units_of_the_gate(tmp_path: Path) -> None:
    task = task_of("regression", tmp_path / "w")  # untrained: a straight line
    none = torch.zeros(1, 2, CHANNELS, 8, 8)
    seen = Neighbours(none, torch.tensor([[-8.0, 8.0, 0.0, 0.0]]), none, none)
    truth = torch.ones(1, CHANNELS, 8, 8)
    loss = task.objective(TupleBatch(truth, seen, truth, torch.zeros(1)))["loss"]
    assert float(loss) == pytest.approx(1 + 25 / 64, rel=1e-5)


@torch.no_grad()
def test_the_diffusion_autoencoder_is_asked_for_the_noise_of_its_batch(tmp_path: Path) -> None:
    task = task_of("diffusion-autoencoder", tmp_path / "w")
    batch = task.batch(0, 0)
    assert isinstance(batch, TupleBatch)
    # Untrained it predicts none at all.
    wanted = float(batch.noise.square().mean())
    assert float(task.objective(batch)["loss"]) == pytest.approx(wanted, rel=1e-5)
    objective = task.objective
    assert isinstance(objective, DiffusionAutoencoderObjective)
    objective.baseline.noise = lambda x, t, code: batch.noise  # type: ignore[method-assign]
    assert float(objective(batch)["loss"]) == 0
