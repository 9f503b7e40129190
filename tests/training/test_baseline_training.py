"""The learned baselines on moving discs: a few steps of tiny networks on the CPU."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from calid.baselines.learned import LEARNED, load_baseline, new_baseline, save_baseline
from calid.cli.main import main
from calid.data.bank import Film
from calid.errors import UsageError, WeightsError
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.context import Acquired, Context
from calid.training.baselines import baseline_objective
from calid.training.interpolator import TupleBatch, interpolator_task
from calid.training.loop import FitConfig, Task, fit

CPU = torch.device("cpu")
SIZE, CHANNELS = 32, 3
SHORT = FitConfig(steps=2, rate=1e-3, warmup=1, save_every=2, validate_every=2)
LONG = FitConfig(steps=40, rate=5e-3, warmup=4, save_every=1000, validate_every=1000)


def disc(seed: int, slices: int = 9) -> np.ndarray:
    """``(slices, 40, 40)``: a bright disc on a grey ground that drifts and shrinks."""
    rng = np.random.default_rng(seed)
    x, y, dx, dy = rng.uniform(16, 24, 2).tolist() + rng.uniform(-1, 1, 2).tolist()
    rows, columns = np.mgrid[:40, :40]
    k = np.arange(slices)[:, None, None]
    distance = np.hypot(columns - x - dx * k, rows - y - dy * k)
    return 0.2 + 0.7 / (1 + np.exp(distance - 12 + k)) + 0.03 * rng.random((slices, 40, 40))


def film(name: str, seed: int) -> Film:
    codes = np.rint(170 * disc(seed)[None]).astype(np.uint8)
    return Film(name, codes, 8.0 * np.arange(codes.shape[1]))


TRAIN, HELD_OUT = [film("a", 0), film("b", 1)], [film("d", 3)]


@cache
def frozen() -> Autoencoder:
    torch.manual_seed(0)
    sizes = AutoencoderConfig(CHANNELS, (8, 16), (1, 1), (1, 1))
    return Autoencoder(sizes).eval().requires_grad_(False)


def perturb(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def task_of(name: str, weights: Path) -> Task:
    torch.manual_seed(0)
    objective = baseline_objective(new_baseline(name, channels=CHANNELS, widths=(8, 16)))
    return interpolator_task(
        objective, frozen(), TRAIN, HELD_OUT, weights, SIZE, stacks=2, targets=2, seed=0, device=CPU
    )


def lines_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_the_loss_falls_on_one_repeated_batch(tmp_path: Path, name: str) -> None:
    task = task_of(name, tmp_path / "w.safetensors")
    batch = task.batch(0, 0)
    repeated = dataclasses.replace(task, batch=lambda step, rank: batch)
    fit(repeated, tmp_path, LONG, CPU, resume=False)
    losses = [line["loss"] for line in lines_of(tmp_path) if "loss" in line]
    assert len(losses) == 40
    assert losses[-1] < 0.8 * losses[0]
    assert losses[-1] < losses[20]


@pytest.mark.slow
@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("name", LEARNED)
def test_the_exported_file_gives_the_averaged_network_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.safetensors"
    fit(task_of(name, path), tmp_path, SHORT, CPU, resume=False)
    loaded = load_baseline(path, name)
    assert not loaded.training
    state = load_file(tmp_path / "checkpoint.safetensors")
    for key, parameter in loaded.named_parameters():
        average = state[f"average/interpolator.{key}"]
        torch.testing.assert_close(parameter.data, average.half().float(), rtol=0, atol=0)
    with safe_open(path, "np") as store:
        figures = json.loads(store.metadata()["figures"])
    assert figures["step"] == 2
    assert 0 < figures["psnr"] < 60
    (other,) = set(LEARNED) - {name}
    with pytest.raises(WeightsError, match=name):
        load_baseline(path, other)


@pytest.mark.parametrize("name", LEARNED)
def test_every_size_survives_the_file(tmp_path: Path, name: str) -> None:
    sizes = {"per_side": 1} if name == "regression" else {"morphology": True, "semantic": 16}
    model = new_baseline(name, channels=2, widths=(8, 8), **sizes)
    perturb(model)
    save_baseline(model, tmp_path / "w.safetensors", {})
    loaded = load_baseline(tmp_path / "w.safetensors", name)
    assert loaded.config == model.config
    for key, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value.half().float(), rtol=0, atol=0)


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(UsageError, match="regression, diffusion-autoencoder"):
        new_baseline("magic")


def loss(task: Task, batch: TupleBatch) -> float:
    with torch.no_grad():
        return float(task.objective(batch)["loss"])


@pytest.mark.parametrize("name", LEARNED)
def test_the_loss_is_about_the_hidden_slices(tmp_path: Path, name: str) -> None:
    task = task_of(name, tmp_path / "w")
    perturb(task.objective)
    batch = task.batch(1, 0)
    assert isinstance(batch, TupleBatch)

    def changed(numbers: list[int]) -> TupleBatch:
        latents = batch.acquired.latents.clone()
        latents[numbers] += 1.0
        return dataclasses.replace(
            batch, acquired=dataclasses.replace(batch.acquired, latents=latents)
        )

    target = set(batch.target.tolist())
    seen = set(batch.context.index[batch.context.mask].tolist())
    unseen = set(range(len(batch.acquired.latents))) - target - seen
    base = loss(task, batch)
    assert loss(task, changed(sorted(unseen))) == base
    assert loss(task, changed(sorted(target))) != pytest.approx(base, rel=1e-3)
    # A diffusion autoencoder learns every slice on its own.
    around = loss(task, changed(sorted(seen - target)))
    assert (around == base) is (name == "diffusion-autoencoder")


def test_errors_of_the_regression_count_in_units_of_the_gate(tmp_path: Path) -> None:
    task = task_of("regression", tmp_path / "w")  # untrained: the blend of the nearest two
    latents = torch.zeros(3, CHANNELS, 8, 8)
    latents[1] = 1.0
    context = Context(
        torch.tensor([[0, 0, 2, 2]]),
        torch.tensor([[0.0, -8.0, 8.0, 0.0]]),
        torch.tensor([[False, True, True, False]]),
    )
    none = torch.zeros(1)
    acquired = Acquired(torch.zeros(3, 1, SIZE, SIZE), latents, frozen().encode)
    batch = TupleBatch(acquired, context, torch.tensor([1]), latents[:1], none, none)
    assert loss(task, batch) == pytest.approx(1 + 25 / 64, rel=1e-5)


def test_batches_are_those_of_the_default_preset(tmp_path: Path) -> None:
    one, other = (task_of(name, tmp_path / "w").batch(3, 0) for name in LEARNED)
    assert isinstance(one, TupleBatch)
    assert isinstance(other, TupleBatch)
    torch.testing.assert_close(one.noise, other.noise, rtol=0, atol=0)
    torch.testing.assert_close(one.context.distance, other.context.distance, rtol=0, atol=0)


@pytest.mark.usefixtures("precision")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"), [*((name, {}) for name in LEARNED), (LEARNED[1], {"morphology": True})]
)
def test_the_command_trains_a_baseline(tmp_path: Path, name: str, sizes: dict[str, bool]) -> None:
    for folder, names in (("train", "ab"), ("held", "c")):
        (tmp_path / folder).mkdir()
        for subject in names:
            data = (1000 * disc(ord(subject), 5)).astype(np.int16).transpose(2, 1, 0)
            image = nib.Nifti1Image(data, np.diag([1.5, 1.5, 8.0, 1.0]))
            image.header.set_xyzt_units("mm")
            nib.save(image, tmp_path / folder / f"{subject}.nii.gz")
    out = tmp_path / "out"
    options = {"data": tmp_path / "train", "validation": tmp_path / "held", "out": out}
    options |= {"method": name, "size": 32, "steps": 2, "stacks": 1, "targets": 1, "device": "cpu"}
    given = [str(x) for k, v in options.items() for x in (f"--{k}", v)]
    main(["train", "baseline", *given, *(f"--{option}" for option in sizes)])
    model = load_baseline(out / f"{name}.safetensors", name)
    assert model.config == new_baseline(name, **sizes).config
    steps = [line for line in lines_of(out) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2]
    assert np.isfinite([line["loss"] for line in steps]).all()
