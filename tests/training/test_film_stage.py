"""Stage 3 with real but tiny networks on beating discs: a few steps on the CPU."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from calid.cli.main import main
from calid.data.bank import Film
from calid.data.film_sampling import centre_film
from calid.data.phantom import HeartPhantom
from calid.errors import DataError
from calid.inference.reconstruct import densify
from calid.io import write_volume
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.interpolator import Interpolator, InterpolatorConfig, with_temporal_layers
from calid.models.store import load_interpolator
from calid.models.temporal import Frames
from calid.training.autoencoder import measure_latents
from calid.training.film import FilmObjective, _change, film_task
from calid.training.interpolator import RefineObjective, TupleBatch
from calid.training.loop import FitConfig, Task, fit
from calid.training.setup import phantom_films

CPU = torch.device("cpu")
SIZE, CHANNELS, FRAMES = 32, 3, 8
SHORT = FitConfig(steps=4, rate=1e-3, warmup=2, save_every=2, validate_every=4)
LONG = FitConfig(steps=25, rate=5e-3, warmup=4, save_every=1000, validate_every=25)


class PowerCutError(Exception):
    pass


def film(name: str, seed: int, frames: int = FRAMES) -> Film:
    """A bright disc on a grey ground that beats and drifts along the stack."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(16, 24, 2).tolist()
    rows, columns = np.mgrid[:40, :40]
    k = np.arange(5)[:, None, None]
    beat = 2.5 * np.cos(2 * np.pi * np.arange(frames) / frames)[:, None, None, None]
    radius = 11 - k + beat
    distance = np.hypot(columns - x - k, rows - y)
    image = 0.2 + 0.7 / (1 + np.exp(distance - radius))
    noise = 0.05 * rng.random((frames, 5, 40, 40))
    return Film(name, np.rint(170 * (image + noise)).astype(np.uint8), 8.0 * np.arange(5))


TRAIN, HELD_OUT = [film("a", 0), film("b", 1)], [film("d", 3)]


def perturb(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@cache
def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(CHANNELS, (8, 16), (1, 1), (1, 1)))
    perturb(model.eval().requires_grad_(False), 0)
    images = torch.cat([centre_film(f, SIZE).images.flatten(0, 1) for f in TRAIN])
    measure_latents(model, images[:, None])
    return model


def start() -> Interpolator:
    """What stage 2 left, the same every time."""
    torch.manual_seed(1)
    model = Interpolator(InterpolatorConfig(CHANNELS, (8, 16, 16)))
    perturb(model, 1)
    return model


def task_of(weights: Path, seed: int = 0) -> Task:
    """A fresh task; ``seed`` is that of the new layers, not of the data."""
    single = start()
    torch.manual_seed(seed)
    return film_task(
        FilmObjective(with_temporal_layers(single, heads=2)),
        autoencoder(),
        TRAIN,
        HELD_OUT,
        weights,
        SIZE,
        frames=FRAMES,
        targets=2,
        seed=0,
        device=CPU,
    )


def log_of(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    clock = ("seconds", "left")
    return [
        {k: v for k, v in line.items() if k not in clock and not k.endswith("_per_second")}
        for line in lines
    ]


@pytest.mark.usefixtures("precision")
@pytest.mark.slow
def test_only_temporal_layers_change_and_single_frames_are_answered_as_before(tmp_path):
    path = tmp_path / "default.safetensors"
    fit(task_of(path), tmp_path, SHORT, CPU, resume=False)
    loaded = load_interpolator(path, "default")
    assert isinstance(loaded, Interpolator)
    assert loaded.config.temporal == 2
    before, after = start().state_dict(), loaded.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value.half().float(), rtol=0, atol=0)
    added = {name: value for name, value in after.items() if name not in before}
    assert all(".mix." in name for name in added)
    moved = [float(v.abs().max()) for n, v in added.items() if n.endswith("exit.weight")]
    assert len(moved) == 6
    assert min(moved) > 0, "each of them learns"
    saved = load_file(tmp_path / "checkpoint.safetensors")
    assert all(".mix." in key for key in saved)


@pytest.mark.slow
def test_the_loss_falls_on_one_repeated_batch(tmp_path):
    task = task_of(tmp_path / "w.safetensors")
    batch = task.batch(0, 0)
    repeated = dataclasses.replace(task, batch=lambda step, rank: batch)
    fit(repeated, tmp_path, LONG, CPU, resume=False)
    losses = [line["loss"] for line in log_of(tmp_path) if "loss" in line]
    assert losses[-1] < 0.95 * losses[0]  # type: ignore[operator]


@pytest.mark.slow
def test_a_run_that_was_cut_off_and_resumed_is_the_uninterrupted_one(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(task_of(whole / "w.safetensors"), whole, SHORT, CPU, resume=False)
    first = task_of(parts / "w.safetensors")

    def power_cut(step: int, rank: int) -> object:
        if step == 3:
            raise PowerCutError
        return first.batch(step, rank)

    with pytest.raises(PowerCutError):
        fit(dataclasses.replace(first, batch=power_cut), parts, SHORT, CPU, resume=False)
    fit(task_of(parts / "w.safetensors", seed=99), parts, SHORT, CPU, resume=True)
    assert log_of(whole) == log_of(parts)
    for name in ("w.safetensors", "checkpoint.safetensors"):
        one, other = load_file(whole / name), load_file(parts / name)
        assert one.keys() == other.keys()
        for key, value in one.items():
            torch.testing.assert_close(value, other[key], rtol=0, atol=0)


def test_a_batch_is_one_film_with_the_same_targets_and_noise_in_every_frame(tmp_path):
    batch = task_of(tmp_path / "w").batch(5, 0)
    again = task_of(tmp_path / "w", seed=7).batch(5, 0)
    assert isinstance(batch, TupleBatch)
    assert isinstance(again, TupleBatch)
    torch.testing.assert_close(batch.noise, again.noise, rtol=0, atol=0)
    torch.testing.assert_close(batch.acquired.images, again.acquired.images, rtol=0, atol=0)
    count = batch.context.frames.count
    assert batch.acquired.frames == batch.context.frames
    assert count > 1
    slices = len(batch.acquired.images) // count
    for values in (batch.noise, batch.uniform, batch.normal, batch.context.distance):
        film = values.unflatten(0, (count, 2))
        torch.testing.assert_close(film, film[:1].expand_as(film), rtol=0, atol=0)
    target = batch.target.view(count, 2)
    torch.testing.assert_close(
        target, target[0] + slices * torch.arange(count)[:, None], rtol=0, atol=0
    )
    assert not (batch.context.index == batch.target[:, None])[batch.context.mask].any()
    used = torch.cat([batch.context.index.flatten(), batch.target]).unique()
    assert len(used) == len(batch.acquired.images)


def test_the_context_lies_where_its_distances_say(tmp_path):
    """Slices of a ramp along the stack show where they are."""
    ramp = np.broadcast_to(10 * np.arange(5)[:, None, None], (FRAMES, 5, 40, 40)).astype(np.uint8)
    films = [Film("a", ramp, 8.0 * np.arange(5))]
    task = film_task(
        FilmObjective(with_temporal_layers(start())), autoencoder(), films, films, tmp_path / "w",
        SIZE, frames=FRAMES, targets=2, seed=0, device=CPU,
    )  # fmt: skip
    for step in range(4):
        batch = task.batch(step, 0)
        assert isinstance(batch, TupleBatch)
        bright = batch.acquired.images.mean((1, 2, 3))
        apart = bright[batch.context.index] - bright[batch.target][:, None]
        known = batch.context.mask
        signs = torch.sign(apart[known]) * torch.sign(batch.context.distance[known])
        assert len(signs.unique()) == 1


def test_the_change_of_a_whole_cycle_wraps_and_of_a_part_does_not():
    error = torch.arange(8.0).repeat_interleave(2)
    whole, part = (_change(error, Frames(8, cycle)) for cycle in (8, 9))
    assert whole.tolist() == [[1.0, 1.0]] * 7 + [[-7.0, -7.0]]
    assert part.tolist() == [[1.0, 1.0]] * 7


def test_the_objective_adds_how_the_mean_moves_to_that_of_stage_2(tmp_path):
    task = task_of(tmp_path / "w")
    batch = task.batch(0, 0)
    objective = task.objective
    assert isinstance(objective, FilmObjective)
    assert isinstance(batch, TupleBatch)
    terms = objective(batch)
    plain = RefineObjective(objective.interpolator)(batch)
    motion = terms["latent_change"] + objective.carry * terms["image_change"]
    torch.testing.assert_close(terms["loss"], plain["loss"] + objective.motion * motion)
    assert float(motion) > 0


@pytest.mark.slow
def test_validation_tells_films_from_single_frames(tmp_path):
    task = task_of(tmp_path / "w")
    with torch.no_grad():
        before = task.validate()
    # Before training films differ by their registration alone.
    assert before["psnr"] == pytest.approx(before["single_psnr"], abs=0.02)
    assert before["temporal_error"] == pytest.approx(before["single_temporal_error"], abs=0.02)
    for name, parameter in task.objective.named_parameters():
        if name.endswith("exit.weight") and ".mix." in name:
            parameter.data += 0.5
    with torch.no_grad():
        after = task.validate()
        again = task_of(tmp_path / "w").validate()
    assert after["psnr"] != before["psnr"]
    assert after["single_psnr"] == before["single_psnr"] == again["single_psnr"]


def test_stacks_that_are_no_films_are_not_enough(tmp_path):
    still = [film("e", 0, frames=2)]
    objective = FilmObjective(with_temporal_layers(start()))
    for train, held_out in ((still, HELD_OUT), (TRAIN, still)):
        with pytest.raises(DataError, match="4 frames"):
            film_task(objective, autoencoder(), train, held_out, tmp_path / "w", SIZE, 8, 1, 0, CPU)


def test_phantom_films_beat(monkeypatch):
    acquire = HeartPhantom.acquire

    def small(self: HeartPhantom, **asked: object) -> object:
        return acquire(self, **asked, slices=2, field_of_view=48.0)  # type: ignore[arg-type]

    monkeypatch.setattr(HeartPhantom, "acquire", small)
    (beating,) = phantom_films(1, frames=3)
    assert len(beating.frames) == 3
    assert not np.array_equal(beating.frames[0], beating.frames[1])
    np.testing.assert_allclose(np.diff(beating.positions), 10.0)


@pytest.mark.slow
def test_the_command_leaves_weights_that_reconstruct_a_film(tmp_path, capsys):
    def linear(images, positions, targets, spacing):
        raise AssertionError

    for folder, seed in (("data", 1), ("held", 2)):
        stack = HeartPhantom(seed).acquire(
            slices=4, start=0.0, field_of_view=48.0, thickness=0.0, phases=(0.0, 0.3, 0.5, 0.8)
        )
        (tmp_path / folder).mkdir()
        write_volume(densify(stack, linear, 1), tmp_path / folder / f"p{seed}_cine.nii.gz")
    data, held, out = (str(tmp_path / name) for name in ("data", "held", "out"))
    main(["train", "temporal", "--data", data, "--validation", held, "--out", out, "--steps", "1",
          "--size", "32", "--targets", "1", "--device", "cpu"])  # fmt: skip
    dense = tmp_path / "dense.nii.gz"
    for flags, together in (([], 4), (["--frame-by-frame"], 1)):
        main(["reconstruct", str(tmp_path / "held" / "p2_cine.nii.gz"), str(dense), "--factor",
              "2", "--weights", out, *flags])  # fmt: skip
        record = json.loads((tmp_path / "dense.json").read_text())
        assert record["settings"]["frames_together"] == together


def test_gradients_reach_every_temporal_parameter(tmp_path):
    task = task_of(tmp_path / "w")
    generator = torch.Generator().manual_seed(0)
    for parameter in task.objective.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    terms: dict[str, Tensor] = task.objective(task.batch(0, 0))
    terms["loss"].backward()
    for name, parameter in task.objective.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, name
        else:
            assert parameter.grad is None, name
