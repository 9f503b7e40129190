"""Trainings by their recipe, from the command line, with everything small."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import pytest
import torch
from command_line import run

from calid.data.phantom import HeartPhantom
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.interpolator import InterpolatorConfig, LatentInterpolator
from calid.models.store import load_tensors, save_autoencoder
from calid.training import recipes
from calid.training.tuples import TupleConfig

CHANNELS = 2


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of stacks to train and to validate on."""
    folders = tmp_path_factory.mktemp("train"), tmp_path_factory.mktemp("validation")
    for seed, folder in enumerate((folders[0], folders[0], folders[1])):
        stack = HeartPhantom(seed).acquire(slices=5, spacing=3.0, field_of_view=120)
        image = nib.Nifti1Image(stack.data[0].transpose(2, 1, 0), stack.affine)
        nib.save(image, folder / f"heart{seed}_ED.nii.gz")
    return folders


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Recipes of two steps, and the weights of a tiny autoencoder."""
    two = recipes.Recipe(
        steps=2, batch=4, rate=1e-3, warmup=1, decay=0.9, phantoms=0, size=32, seed=0
    )
    monkeypatch.setattr(recipes, "AUTOENCODER", two)
    config = InterpolatorConfig(channels=CHANNELS, widths=(8, 16), denoiser=(16, 8), embedding=16)
    tuples = TupleConfig(draws=2, size=32)
    paper = dataclasses.replace(config, registered=False)
    presets = {
        "default": recipes.InterpolatorRecipe(config, tuples, two, two),
        "paper": recipes.InterpolatorRecipe(paper, tuples, two, None),
    }
    monkeypatch.setattr(recipes, "INTERPOLATORS", presets)
    torch.manual_seed(0)
    weights = tmp_path / "autoencoder.safetensors"
    save_autoencoder(Autoencoder(AutoencoderConfig(CHANNELS, (8, 8), (1, 1), (1, 1))), weights, {})
    return weights


def train(preset: str, stacks: tuple[Path, Path], weights: Path, out: Path, *more: str) -> int:
    data = "--data", stacks[0], "--validation", stacks[1], "--autoencoder", weights, "--out", out
    return run("train", preset, *data, "--device", "cpu", *more)


def states(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(path, "interpolator")[0]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_preset_is_one_command(
    preset: str,
    stacks: tuple[Path, Path],
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(preset, stacks, small, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "GB of disk" in said
    assert "draw 2 of 2" in said
    state, config = load_tensors(tmp_path / "out" / f"{preset}.safetensors", "interpolator")
    model = LatentInterpolator(InterpolatorConfig(**config))
    model.load_state_dict(state)
    assert (model.transport is None) == (preset == "paper")
    stages = ["posterior", "transport"][: 1 if preset == "paper" else 2]
    for stage in stages:
        lines = (tmp_path / "out" / stage / "log.jsonl").read_text().splitlines()
        assert [json.loads(x)["step"] for x in lines] == [1, 2, 2]


@pytest.mark.slow
def test_a_run_that_was_stopped_between_its_trainings_ends_as_one_that_was_not(
    stacks: tuple[Path, Path], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("default", stacks, small, tmp_path / "whole") == 0
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("calid.training.latent_interpolator.transport_task", stop)
        assert train("default", stacks, small, tmp_path / "out") == 130
    assert train("default", stacks, small, tmp_path / "out") == 2, "it says --resume"
    assert train("default", stacks, small, tmp_path / "out", "--resume") == 0
    whole, resumed = (states(tmp_path / f / "default.safetensors") for f in ("whole", "out"))
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.slow
def test_tuples_of_other_weights_are_refused(
    stacks: tuple[Path, Path], small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("paper", stacks, small, tmp_path / "out") == 0
    save_autoencoder(
        Autoencoder(AutoencoderConfig(CHANNELS, (8, 8), (1, 1), (1, 1))), small, {"psnr": 1.0}
    )
    assert train("paper", stacks, small, tmp_path / "out", "--resume") == 8
    assert "other data or weights" in capsys.readouterr().err


@pytest.mark.slow
def test_the_autoencoder_is_one_command(
    stacks: tuple[Path, Path], small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    data = "--data", stacks[0], "--validation", stacks[1], "--out", out
    assert run("train", "autoencoder", *data, "--device", "cpu") == 0
    state, config = load_tensors(out / "autoencoder.safetensors", "autoencoder")
    assert config["latent_channels"] == AutoencoderConfig().latent_channels
    assert state["std"].isfinite().all()


def test_every_recipe_is_a_command_and_can_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--help") == 0
    shown = capsys.readouterr().out
    for name, recipe in recipes.INTERPOLATORS.items():
        assert name in shown
        assert recipe.tuples.size == recipe.posterior.size
        for training in (recipe.posterior, recipe.transport):
            assert training is None or training.steps * training.batch >= 990_000
