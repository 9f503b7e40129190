"""Both stages with real but tiny networks on moving discs: a few steps on the CPU."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from calid.data.bank import Film
from calid.data.sampling import centre_stack
from calid.errors import WeightsError
from calid.models.autoencoder import Autoencoder, AutoencoderConfig, Posterior
from calid.models.interpolator import Interpolator, InterpolatorConfig
from calid.models.store import load_autoencoder, load_interpolator, new_interpolator
from calid.training.autoencoder import (
    AutoencoderObjective,
    SliceBatch,
    autoencoder_task,
    measure_latents,
)
from calid.training.interpolator import (
    NoiseObjective,
    RefineObjective,
    TupleBatch,
    interpolator_task,
)
from calid.training.loop import FitConfig, Task, fit

CPU = torch.device("cpu")
SIZE, CHANNELS = 32, 3
SIZES = AutoencoderConfig(CHANNELS, (8, 16), (1, 1), (1, 1))
SHORT = FitConfig(steps=6, rate=1e-3, warmup=2, save_every=2, validate_every=6)
LONG = FitConfig(steps=40, rate=5e-3, warmup=4, save_every=1000, validate_every=1000)
STAGES = ("autoencoder", "default", "paper")


class PowerCutError(Exception):
    pass


def film(name: str, seed: int, slices: int = 9) -> Film:
    """A bright disc on a grey ground that drifts and shrinks along the stack."""
    rng = np.random.default_rng(seed)
    x, y, dx, dy = rng.uniform(16, 24, 2).tolist() + rng.uniform(-1, 1, 2).tolist()
    rows, columns = np.mgrid[:40, :40]
    k = np.arange(slices)[:, None, None]
    radius = 12 - k + np.arange(2)[:, None, None, None]
    distance = np.hypot(columns - x - dx * k, rows - y - dy * k)
    image = 0.2 + 0.7 / (1 + np.exp(distance - radius)) + 0.03 * rng.random((2, slices, 40, 40))
    return Film(name, np.rint(170 * image).astype(np.uint8), 8.0 * np.arange(slices))


TRAIN, HELD_OUT = [film("a", 0), film("b", 1), film("c", 2)], [film("d", 3)]


def perturb(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@cache
def frozen() -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(SIZES).eval().requires_grad_(False)
    perturb(model, 0)
    measure_latents(model, torch.cat([centre_stack(f, 0, SIZE).images for f in TRAIN])[:, None])
    return model


def task_of(stage: str, weights: Path, seed: int = 0) -> Task:
    """A fresh task; ``seed`` is that of the initial weights, not of the data."""
    torch.manual_seed(seed)
    if stage == "autoencoder":
        return autoencoder_task(
            Autoencoder(SIZES), TRAIN, HELD_OUT, weights, SIZE, batch=4, seed=0, device=CPU
        )
    model = new_interpolator(stage, channels=CHANNELS, widths=(8, 16, 16))
    objective = RefineObjective(model) if isinstance(model, Interpolator) else NoiseObjective(model)
    return interpolator_task(
        objective, frozen(), TRAIN, HELD_OUT, weights, SIZE, stacks=2, targets=2, seed=0, device=CPU
    )


def log_of(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def cut(task: Task, stop: int) -> Task:
    def batch(step: int, rank: int) -> object:
        if step == stop:
            raise PowerCutError
        return task.batch(step, rank)

    return dataclasses.replace(task, batch=batch)


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


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_falls_on_one_repeated_batch(tmp_path: Path, stage: str) -> None:
    task = task_of(stage, tmp_path / "w.safetensors")
    batch = task.batch(0, 0)
    repeated = dataclasses.replace(task, batch=lambda step, rank: batch)
    fit(repeated, tmp_path, LONG, CPU, resume=False)
    losses = [line["loss"] for line in log_of(tmp_path) if "loss" in line]
    assert len(losses) == 40
    assert np.isfinite(losses).all()  # type: ignore[arg-type]
    assert losses[-1] < 0.8 * losses[0]  # type: ignore[operator]
    assert losses[-1] < losses[20]  # type: ignore[operator]


@pytest.mark.parametrize("stage", STAGES)
def test_the_exported_file_holds_the_averaged_weights(tmp_path: Path, stage: str) -> None:
    path = tmp_path / "w.safetensors"
    fit(task_of(stage, path), tmp_path, SHORT, CPU, resume=False)
    loaded = load_autoencoder(path) if stage == "autoencoder" else load_interpolator(path, stage)
    state = load_file(tmp_path / "checkpoint.safetensors")
    prefix = "autoencoder." if stage == "autoencoder" else "interpolator."
    for key, parameter in loaded.named_parameters():
        average = state[f"average/{prefix}{key}"]
        torch.testing.assert_close(parameter.data, average.half().float(), rtol=0, atol=0)
    with safe_open(path, "np") as store:
        figures = json.loads(store.metadata()["figures"])
    assert figures["step"] == 6
    assert np.isfinite(list(figures.values())).all()
    assert 0 < figures["psnr"] < 60
    with pytest.raises(WeightsError):
        load_interpolator(path, "paper" if stage == "default" else "default")


@pytest.mark.parametrize("stage", STAGES)
def test_batches_are_a_pure_function_of_step_and_rank(tmp_path: Path, stage: str) -> None:
    one, other = (task_of(stage, tmp_path / "w", seed) for seed in (0, 1))
    one.batch(4, 1)

    def content(batch: object) -> Tensor:
        assert isinstance(batch, SliceBatch | TupleBatch)
        images = batch.images if isinstance(batch, SliceBatch) else batch.latents
        return torch.cat([images.flatten(), batch.noise.flatten()])

    base = content(one.batch(2, 0))
    torch.testing.assert_close(base, content(other.batch(2, 0)), rtol=0, atol=0)
    for step, rank in ((3, 0), (2, 1)):
        again = content(one.batch(step, rank))
        assert again.shape != base.shape or not torch.equal(again, base)


def test_exported_latents_have_mean_0_and_variance_1(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    fit(task_of("autoencoder", path), tmp_path, SHORT, CPU, resume=False)
    model = load_autoencoder(path)
    assert float((model.std - 1).abs().max()) > 0.05, "they were measured"
    images = torch.cat([centre_stack(f, 0, SIZE).images for f in TRAIN])[:, None]
    measure_latents(model, images)
    latents = model.encode(images)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(CHANNELS), rtol=0, atol=1e-3)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(CHANNELS), rtol=1e-3, atol=0)


def test_slices_of_a_batch_come_from_the_films_in_window_units(tmp_path: Path) -> None:
    task = task_of("autoencoder", tmp_path / "w")
    poses = 0
    for step in range(24):
        batch = task.batch(step, 0)
        assert isinstance(batch, SliceBatch)
        assert batch.images.shape == (4, 1, SIZE, SIZE)
        assert batch.noise.shape == (4, CHANNELS, SIZE // 4, SIZE // 4)
        assert 0 <= float(batch.images.min()) <= float(batch.images.max()) <= 1.5
        poses += batch.pose is not None
    assert 1 <= poses <= 13, "a quarter of the steps is warped"


def test_targets_lie_between_the_kept_slices_of_their_own_stack(tmp_path: Path) -> None:
    for stage in ("default", "paper"):
        for step in range(4):
            batch = task_of(stage, tmp_path / "w").batch(step, 0)
            assert isinstance(batch, TupleBatch)
            context, target = batch.context, batch.target[:, None]
            assert batch.latents.shape == (18, CHANNELS, SIZE // 4, SIZE // 4)
            assert target.shape == (4, 1)
            same_stack = (context.index // 9 == target // 9) | ~context.mask
            assert same_stack.all()
            # Slices are 8 mm apart, so the distance in mm tells the distance in slices.
            steps = torch.where(context.mask, context.index - target, 0)
            torch.testing.assert_close(context.distance, 8.0 * steps)
            assert (context.index != target).logical_or(~context.mask).all(), "it is hidden"
            assert (context.distance[:, 1] < 0).all()
            assert (context.distance[:, 2] > 0).all()
            if stage == "paper":
                torch.testing.assert_close(context.distance[:, 1], -context.distance[:, 2])


def test_validation_reports_the_linear_baseline_on_hidden_slices(tmp_path: Path) -> None:
    figures = task_of("default", tmp_path / "w").validate()
    images = centre_stack(HELD_OUT[0], 0, SIZE).images
    truth, linear = images[1::2], (images[:-1:2] + images[2::2]) / 2
    errors = (linear - truth).square().mean((1, 2))
    assert figures["linear_psnr"] == pytest.approx(float((-10 * errors.log10()).mean()), abs=1e-3)
    assert figures["psnr"] < figures["linear_psnr"], "nothing is trained yet"
    assert 0 < figures["linear_ssim"] < 1


def test_held_out_stacks_that_are_too_short_still_give_figures(tmp_path: Path) -> None:
    objective = RefineObjective(Interpolator(InterpolatorConfig(CHANNELS, (8, 16, 16))))
    short = [film("s", 5, slices=4)]
    task = interpolator_task(
        objective, frozen(), TRAIN, short, tmp_path / "w", SIZE, 1, 1, seed=0, device=CPU
    )
    assert np.isfinite(list(task.validate().values())).all()


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
    assert float(terms["loss"]) == pytest.approx(0.155 + 0.5 * 0.01 + 2e-4 * 2, rel=1e-4)
    perfect = AutoencoderObjective(Fixed(truth))(SliceBatch(truth, noise, None))
    assert float(perfect["absolute"]) == 0


def test_a_warped_latent_has_to_give_the_warped_image() -> None:
    truth = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    mirror = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    batch = SliceBatch(truth, torch.zeros(2, CHANNELS, 8, 8), mirror)
    right = AutoencoderObjective(Fixed(truth.flip(3)))(batch)
    wrong = AutoencoderObjective(Fixed(truth))(batch)
    assert float(right["absolute"]) < 0.05 < 0.2 < float(wrong["absolute"])


def loss_with(stage: str, change: Callable[[TupleBatch], TupleBatch], tmp_path: Path) -> float:
    task = task_of(stage, tmp_path / "w")
    perturb(task.objective, 3)
    batch = task.batch(1, 0)
    assert isinstance(batch, TupleBatch)
    with torch.no_grad():
        return float(task.objective(change(batch))["loss"])


@pytest.mark.parametrize("stage", ["default", "paper"])
def test_the_loss_depends_on_the_hidden_slice_and_not_on_unseen_ones(
    tmp_path: Path, stage: str
) -> None:
    def change_target(batch: TupleBatch) -> TupleBatch:
        latents = batch.latents.clone()
        latents[batch.target] += 1.0
        return dataclasses.replace(batch, latents=latents)

    def change_unseen(batch: TupleBatch) -> TupleBatch:
        seen = set(batch.target.tolist()) | set(batch.context.index[batch.context.mask].tolist())
        unseen = [i for i in range(len(batch.latents)) if i not in seen]
        assert unseen
        latents = batch.latents.clone()
        latents[unseen] += 1.0
        return dataclasses.replace(batch, latents=latents)

    base = loss_with(stage, lambda batch: batch, tmp_path)
    assert loss_with(stage, change_unseen, tmp_path) == base
    assert loss_with(stage, change_target, tmp_path) != pytest.approx(base, rel=1e-3)
