"""Every training with real but tiny networks: a few steps on the CPU."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from training.stages import CPU, ON_TUPLES, STAGES, log_of, perturb, task_of

from calid.baselines.learned import LEARNED
from calid.errors import WeightsError
from calid.io.labels import CLASSES
from calid.models.store import load_tensors
from calid.training.autoencoder import SliceBatch
from calid.training.interpolator import TupleBatch
from calid.training.loop import FitConfig, Task, fit
from calid.training.segmentation import LabelledBatch

SHORT = FitConfig(steps=6, rate=1e-3, warmup=2, save_every=2, validate_every=6)
LONG = FitConfig(steps=40, rate=5e-3, warmup=4, save_every=1000, validate_every=1000)
SEEN = {
    "default": {"adjacent", "moved", "beyond"},
    "transport": {"moved"},
    "paper": {"adjacent"},
    "regression": {"adjacent", "beyond"},
    # It learns every slice on its own.
    "diffusion-autoencoder": set[str](),
}


class PowerCutError(Exception):
    pass


def kind_of(stage: str) -> str:
    """Of the weights that a training leaves."""
    return stage if stage in ("autoencoder", "segmentation", *LEARNED) else "interpolator"


def cut(task: Task, stop: int) -> Task:
    def batch(step: int, rank: int) -> object:
        if step == stop:
            raise PowerCutError
        return task.draw(step, rank)

    return dataclasses.replace(task, draw=batch)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_was_cut_off_and_resumed_is_the_uninterrupted_one(
    tmp_path: Path, stage: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(task_of(stage, whole / "w.safetensors"), whole, SHORT, CPU, resume=False)
    first = task_of(stage, parts / "w.safetensors")
    with pytest.raises(PowerCutError):
        fit(cut(first, 5), parts, SHORT, CPU, resume=False)
    assert not (parts / "w.safetensors").exists()
    second = task_of(stage, parts / "w.safetensors", seed=99)
    fit(second, parts, SHORT, CPU, resume=True)
    assert log_of(whole) == log_of(parts)
    for name in ("w.safetensors", "checkpoint.safetensors"):
        one, other = load_file(whole / name), load_file(parts / name)
        assert one.keys() == other.keys()
        for key, value in one.items():
            torch.testing.assert_close(value, other[key], rtol=0, atol=0)


@pytest.mark.usefixtures("precision")
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_falls_on_one_repeated_batch(tmp_path: Path, stage: str) -> None:
    task = task_of(stage, tmp_path / "w.safetensors")
    batch = task.draw(0, 0)
    repeated = dataclasses.replace(task, draw=lambda step, rank: batch)
    fit(repeated, tmp_path, LONG, CPU, resume=False)
    losses = [line["loss"] for line in log_of(tmp_path) if "loss" in line]
    assert len(losses) == 40
    assert np.isfinite(losses).all()  # type: ignore[arg-type]
    # Of the films' network only the mixing of frames learns.
    falls = 1.0 if stage == "films" else 0.8
    assert losses[-1] < falls * losses[0]  # type: ignore[operator]
    assert losses[-1] < losses[20]  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_exported_file_holds_the_averaged_weights(tmp_path: Path, stage: str) -> None:
    path = tmp_path / "w.safetensors"
    fit(task_of(stage, path), tmp_path, SHORT, CPU, resume=False)
    state, _ = load_tensors(path, kind_of(stage))
    saved = load_file(tmp_path / "checkpoint.safetensors")
    averages = {k.removeprefix("average/"): v for k, v in saved.items() if k.startswith("average/")}
    assert averages
    for key, average in averages.items():
        name = key if stage == "transport" else key.split(".", 1)[1]
        torch.testing.assert_close(state[name], average.half().float(), rtol=0, atol=0)
    with safe_open(path, "np") as store:
        figures = json.loads(store.metadata()["figures"])
    assert figures.pop("step") == 6
    assert np.isfinite(list(figures.values())).all()
    wanted = {
        "autoencoder": {"psnr", "ssim"},
        "segmentation": {"dice", *CLASSES},
        "films": {"loss", "regression", "alone_loss", "alone_regression"},
    }
    assert wanted.get(stage, {"loss", "narrow_loss", "wide_loss"}) <= figures.keys()
    with pytest.raises(WeightsError, match=kind_of(stage)):
        load_tensors(path, "another")


@pytest.mark.parametrize("stage", STAGES)
def test_batches_are_a_pure_function_of_step_and_rank(tmp_path: Path, stage: str) -> None:
    one, other = (task_of(stage, tmp_path / "w", seed) for seed in (0, 1))
    one.draw(4, 1)

    def content(batch: object) -> Tensor:
        assert isinstance(batch, SliceBatch | TupleBatch | LabelledBatch)
        if isinstance(batch, LabelledBatch):
            return torch.cat([batch.images.flatten(), batch.labels.flatten()])
        if isinstance(batch, SliceBatch):
            return torch.cat([batch.images.flatten(), batch.noise.flatten()])
        seen = batch.neighbours
        parts = [batch.truth, seen.adjacent, seen.distance, batch.noise, batch.uniform]
        return torch.cat([part.flatten() for part in parts])

    base = content(one.draw(2, 0))
    torch.testing.assert_close(base, content(other.draw(2, 0)), rtol=0, atol=0)
    for step, rank in ((3, 0), (2, 1)):
        again = content(one.draw(step, rank))
        assert again.shape != base.shape or not torch.equal(again, base)


def test_all_networks_of_stage_2_see_the_same_batches(tmp_path: Path) -> None:
    batches = [task_of(stage, tmp_path / "w").draw(3, 0) for stage in ON_TUPLES]
    for batch in batches:
        assert isinstance(batch, TupleBatch)
        torch.testing.assert_close(batch.truth, batches[0].truth, rtol=0, atol=0)
        torch.testing.assert_close(batch.noise, batches[0].noise, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("stage", ON_TUPLES)
def test_the_loss_is_about_the_hidden_slice_and_what_the_network_may_see(
    tmp_path: Path, stage: str
) -> None:
    task = task_of(stage, tmp_path / "w")
    perturb(task.objective, 3)
    batch = task.draw(1, 0)
    assert isinstance(batch, TupleBatch)

    def loss(changed: TupleBatch) -> float:
        return float(task.objective(changed)["loss"])

    base = loss(batch)
    assert loss(dataclasses.replace(batch, truth=batch.truth + 1)) != base
    for name in ("adjacent", "moved", "beyond"):
        latents = getattr(batch.neighbours, name)
        # Not by a constant, which a normalisation could take away.
        other = latents + torch.linspace(-2, 2, latents.shape[-1])
        seen = dataclasses.replace(batch.neighbours, **{name: other})
        changed = loss(dataclasses.replace(batch, neighbours=seen))
        assert (changed != base) is (name in SEEN[stage]), name
