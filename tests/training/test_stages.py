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
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.context import Context
from calid.models.correspondence import carry
from calid.models.interpolator import Interpolator, InterpolatorConfig
from calid.models.store import load_autoencoder, load_interpolator, new_interpolator
from calid.training.autoencoder import (
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
    clock = ("seconds", "left")
    return [
        {k: v for k, v in line.items() if k not in clock and not k.endswith("_per_second")}
        for line in lines
    ]


def cut(task: Task, stop: int) -> Task:
    def batch(step: int, rank: int) -> object:
        if step == stop:
            raise PowerCutError
        return task.batch(step, rank)

    return dataclasses.replace(task, batch=batch)


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
    batch = task.batch(0, 0)
    repeated = dataclasses.replace(task, batch=lambda step, rank: batch)
    fit(repeated, tmp_path, LONG, CPU, resume=False)
    losses = [line["loss"] for line in log_of(tmp_path) if "loss" in line]
    assert len(losses) == 40
    assert np.isfinite(losses).all()  # type: ignore[arg-type]
    assert losses[-1] < 0.8 * losses[0]  # type: ignore[operator]
    assert losses[-1] < losses[20]  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_exported_file_holds_the_averaged_weights(tmp_path: Path, stage: str) -> None:
    path = tmp_path / "w.safetensors"
    fit(task_of(stage, path), tmp_path, SHORT, CPU, resume=False)
    loaded = load_autoencoder(path) if stage == "autoencoder" else load_interpolator(path, stage)
    state = load_file(tmp_path / "checkpoint.safetensors")
    prefix = "autoencoder" if stage == "autoencoder" else "interpolator"
    for key, parameter in loaded.named_parameters():
        average = state[f"average/{prefix}.{key}"]
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
        if isinstance(batch, SliceBatch):
            return torch.cat([batch.images.flatten(), batch.noise.flatten()])
        parts = [batch.acquired.images, batch.acquired.latents, batch.context.distance,
                 batch.target, batch.noise, batch.uniform, batch.normal]  # fmt: skip
        return torch.cat([part.flatten() for part in parts])

    base = content(one.batch(2, 0))
    torch.testing.assert_close(base, content(other.batch(2, 0)), rtol=0, atol=0)
    for step, rank in ((3, 0), (2, 1)):
        again = content(one.batch(step, rank))
        assert again.shape != base.shape or not torch.equal(again, base)


def test_slices_of_a_batch_come_from_the_films_in_window_units(tmp_path: Path) -> None:
    task = task_of("autoencoder", tmp_path / "w")
    mixed = 0
    for step in range(24):
        batch = task.batch(step, 0)
        assert isinstance(batch, SliceBatch)
        assert batch.images.shape == (4, 1, SIZE, SIZE)
        assert batch.noise.shape == (4, CHANNELS, SIZE // 4, SIZE // 4)
        assert 0 <= float(batch.images.min()) <= float(batch.images.max()) <= 1.5
        mixed += batch.share is not None
        assert batch.share is None or 0 <= batch.share <= 1
    assert 1 <= mixed <= 12, "a fifth of the steps mixes latents"


def test_targets_lie_between_the_kept_slices_of_their_own_stack(tmp_path: Path) -> None:
    for stage in ("default", "paper"):
        for step in range(4):
            batch = task_of(stage, tmp_path / "w").batch(step, 0)
            assert isinstance(batch, TupleBatch)
            context, target = batch.context, batch.target[:, None]
            acquired = batch.acquired
            assert acquired.images.shape == (18, 1, SIZE, SIZE)
            assert acquired.latents.shape == (18, CHANNELS, SIZE // 4, SIZE // 4)
            torch.testing.assert_close(acquired.latents, acquired.encode(acquired.images))
            torch.testing.assert_close(acquired.latents, frozen().encode(acquired.images))
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


def terms_with(
    stage: str, change: Callable[[TupleBatch], TupleBatch], tmp_path: Path
) -> dict[str, float]:
    task = task_of(stage, tmp_path / "w")
    perturb(task.objective, 3)
    batch = task.batch(1, 0)
    assert isinstance(batch, TupleBatch)
    with torch.no_grad():
        return {k: float(v) for k, v in task.objective(change(batch)).items()}


def brighten(batch: TupleBatch, index: list[int], latents: bool, images: bool) -> TupleBatch:
    """Change some slices, as latents, as images or both."""
    acquired = batch.acquired
    latent, image = acquired.latents.clone(), acquired.images.clone()
    latent[index] += 3.0 * latents
    image[index] += 0.3 * images
    return dataclasses.replace(
        batch, acquired=dataclasses.replace(acquired, latents=latent, images=image)
    )


@pytest.mark.parametrize("stage", ["default", "paper"])
def test_the_loss_depends_on_the_hidden_slice_and_not_on_unseen_ones(
    tmp_path: Path, stage: str
) -> None:
    def change_target(batch: TupleBatch) -> TupleBatch:
        return brighten(batch, batch.target.tolist(), latents=True, images=False)

    def change_unseen(batch: TupleBatch) -> TupleBatch:
        seen = set(batch.target.tolist()) | set(batch.context.index[batch.context.mask].tolist())
        unseen = [i for i in range(len(batch.acquired.images)) if i not in seen]
        assert unseen
        return brighten(batch, unseen, latents=True, images=True)

    base = terms_with(stage, lambda batch: batch, tmp_path)
    assert terms_with(stage, change_unseen, tmp_path) == base
    changed = terms_with(stage, change_target, tmp_path)
    assert changed["loss"] != pytest.approx(base["loss"], rel=1e-3)


def test_the_hidden_slice_is_the_truth_of_each_term_and_seen_by_none(tmp_path: Path) -> None:
    def hidden(latents: bool, images: bool) -> dict[str, float]:
        # One target only: the hidden slice of one may be context of another.
        def change(batch: TupleBatch) -> TupleBatch:
            context = batch.context
            one = Context(context.index[:1], context.distance[:1], context.mask[:1])
            parts = {k: getattr(batch, k)[:1] for k in ("target", "noise", "uniform", "normal")}
            alone = dataclasses.replace(batch, context=one, **parts)
            return brighten(alone, alone.target.tolist(), latents, images)

        return terms_with("default", change, tmp_path)

    base = hidden(latents=False, images=False)
    as_latent, as_image = hidden(latents=True, images=False), hidden(latents=False, images=True)
    assert as_latent["carried"] == base["carried"]
    for term in ("regression", "flow"):
        assert as_image[term] == base[term]
        assert as_latent[term] != pytest.approx(base[term], rel=1e-3)
    assert as_image["carried"] != pytest.approx(base["carried"], rel=1e-3)


def test_the_loss_of_the_default_preset_is_the_weighted_sum_of_its_terms(tmp_path: Path) -> None:
    task = task_of("default", tmp_path / "w")
    perturb(task.objective, 3)
    batch = task.batch(1, 0)
    assert isinstance(batch, TupleBatch)
    model = task.objective.interpolator
    assert isinstance(model, Interpolator)
    terms = RefineObjective(model, flow=0.3, carry=7.0)(batch)
    assert set(terms) == {"loss", "regression", "flow", "carried"}
    total = terms["regression"] + 0.3 * terms["flow"] + 7.0 * terms["carried"]
    torch.testing.assert_close(terms["loss"].detach(), total)
    assert terms["loss"].requires_grad
    assert not any(terms[k].requires_grad for k in ("regression", "flow", "carried"))


def test_carried_images_count_by_their_squared_error_in_units_of_the_gate(tmp_path: Path) -> None:
    task = task_of("default", tmp_path / "w")
    perturb(task.objective, 3)
    batch = task.batch(1, 0)
    assert isinstance(batch, TupleBatch)
    with torch.no_grad():
        aligned, seen = task.objective.interpolator.align(batch.acquired, batch.context)
        carried = carry(seen, aligned)
        terms = task.objective(batch)
    errors = (carried - batch.acquired.images[batch.target]).square().mean((1, 2, 3))
    expected = (errors / batch.context.gate.square()).mean()
    torch.testing.assert_close(terms["carried"], expected, rtol=1e-4, atol=0)


def test_each_term_teaches_only_what_it_may(tmp_path: Path) -> None:
    def gradients(flow: float, carry: float) -> dict[str, Tensor]:
        task = task_of("default", tmp_path / "w")
        perturb(task.objective, 3)
        objective = RefineObjective(task.objective.interpolator, flow, carry)
        objective(task.batch(1, 0))["loss"].backward()
        return {k: p.grad for k, p in objective.named_parameters() if p.grad is not None}

    def taught_by(flow: float, carry: float) -> set[str]:
        one, other = gradients(flow, carry), gradients(0.0, 0.0)
        assert one.keys() == other.keys()
        return {k for k, g in one.items() if not torch.allclose(g, other[k], rtol=1e-3)}

    carried, flow = taught_by(0.0, 10.0), taught_by(0.5, 0.0)
    # Where things go and how much of each, not what is to be invented.
    assert any("motion" in k for k in carried)
    assert any("blend" in k for k in carried)
    assert not any("denoiser" in k or "correct." in k for k in carried)
    # The maps that the denoiser sees, not the mean that it completes.
    assert any("denoiser" in k for k in flow)
    assert any("levels" in k for k in flow)
    assert not any("correct." in k or "blend" in k for k in flow)
