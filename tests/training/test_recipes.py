"""Trainings by their recipe, from the command line, with everything small."""

from __future__ import annotations

import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command_line import run
from training import small_recipes

from calid.baselines.learned import LEARNED, load_baseline
from calid.cli.train import FORMER, _Draws
from calid.data.phantom import HeartPhantom
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.interpolator import InterpolatorConfig, LatentInterpolator
from calid.models.store import load_tensors, save_autoencoder
from calid.training import recipes

CHANNELS = 2
PRESETS = ("default", "paper")


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
    for name, recipe in small_recipes.small().items():
        monkeypatch.setattr(recipes, name, recipe)
    torch.manual_seed(0)
    weights = tmp_path / "autoencoder.safetensors"
    save_autoencoder(Autoencoder(AutoencoderConfig(CHANNELS, (8, 8), (1, 1), (1, 1))), weights, {})
    return weights


def train(name: str, stacks: tuple[Path, Path], weights: Path, out: Path, *more: str) -> int:
    data = "--data", stacks[0], "--validation", stacks[1], "--autoencoder", weights, "--out", out
    return run("train", name, *data, "--device", "cpu", *more)


def states(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(path, "interpolator")[0]


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_one_command(
    preset: str,
    stacks: tuple[Path, Path],
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(preset, stacks, small, tmp_path / "out") == 0
    caught = capsys.readouterr()
    said = caught.out + caught.err
    assert "GB of disk" in said
    assert "draw 2 of 2" in said
    state, config = load_tensors(tmp_path / "out" / f"{preset}.safetensors", "interpolator")
    model = LatentInterpolator(InterpolatorConfig(**config))
    model.load_state_dict(state)
    assert (model.transport is None) == (preset == "paper")
    stages = ["posterior", "transport"][: 1 if preset == "paper" else 2]
    assert ("too few films" in said) == (preset == "default")
    # New weights end with the comparison with those of the package.
    assert ("hidden slices of 1 held-out stacks" in said) == (preset == "default")
    if preset == "default":
        lines = {line.split()[0]: line.split()[1:] for line in caught.out.splitlines() if line}
        psnr = {name: float(lines[name][0]) for name in ("linear", "before", "after")}
        assert psnr["before"] > psnr["after"], "two steps teach nothing"
    for stage in stages:
        lines = (tmp_path / "out" / stage / "log.jsonl").read_text().splitlines()
        assert [json.loads(x)["step"] for x in lines] == [1, 2, 2]


@pytest.mark.slow
def test_films_among_the_data_teach_the_mixing_of_frames_last(
    stacks: tuple[Path, Path], small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "films"
    data.mkdir()
    for seed in range(12):
        phases = tuple(np.arange(6) / 6)
        film = HeartPhantom(seed).acquire(slices=4, spacing=3.0, field_of_view=96, phases=phases)
        image = nib.Nifti1Image(film.data.transpose(3, 2, 1, 0), film.affine)
        image.header.set_zooms((*image.header.get_zooms()[:3], 0.15))
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, data / f"subject{seed}_cine.nii.gz")
    out = tmp_path / "out"
    given = "--data", data, "--validation", stacks[1], "--autoencoder", small, "--out", out
    command = "train", "default", *given, "--device", "cpu", "--film-steps", 3
    assert run(*command) == 0
    assert "too few films" not in capsys.readouterr().err
    lines = [json.loads(x) for x in (out / "films" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert {"regression", "alone_regression"} <= lines[-1]["validation"].keys()
    state = states(out / "default.safetensors")
    assert any(w.any() for name, w in state.items() if name.endswith("weigh.weight"))
    assert len(list((out / "tuples").glob("film-*"))) > 12


@pytest.mark.slow
def test_baselines_are_one_command_each_and_share_the_tuples(
    stacks: tuple[Path, Path], small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for number, name in enumerate(LEARNED):
        assert train(name, stacks, small, out) == 0
        said = capsys.readouterr().out
        assert ("draw 2 of 2 is there" in said) is (number > 0)
        model = load_baseline(out / f"{name}.safetensors", name)
        assert model.config.channels == CHANNELS
        lines = (out / name / "log.jsonl").read_text().splitlines()
        assert [json.loads(x)["step"] for x in lines] == [1, 2, 2]
    before = (out / f"{LEARNED[0]}.safetensors").read_bytes()
    assert train(LEARNED[0], stacks, small, out) == 2, "it says --resume"
    assert train(LEARNED[0], stacks, small, out, "--resume") == 0
    assert (out / f"{LEARNED[0]}.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_run_that_was_stopped_between_its_trainings_ends_as_one_that_was_not(
    stacks: tuple[Path, Path], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("default", stacks, small, tmp_path / "whole") == 0
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("calid.training.interpolator.transport_task", stop)
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


def test_the_time_left_is_that_of_draws_that_are_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 2.0, 602.0, 1202.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    told = _Draws(5)
    for done, made in ((1, False), (2, False), (3, True), (4, True)):
        told(done, made)
    third, fourth = capsys.readouterr().out.splitlines()[2:]
    assert third == "draw 3 of 5, about 20 min left"
    assert fourth == "draw 4 of 5, about 10 min left"


def test_every_recipe_is_a_command_and_can_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--help") == 0
    shown = capsys.readouterr().out
    for recipe in recipes.NETWORKS.values():
        for training in filter(None, (recipe.training, recipe.transport)):
            assert recipe.tuples.size == training.size
            assert training.steps * training.batch >= 990_000
    assert recipes.NETWORKS.keys() == {*PRESETS, *LEARNED}
    assert all(name in shown for name in recipes.NETWORKS)
    assert not any(f"• {name}" in shown for name in FORMER)


@pytest.mark.parametrize("name", FORMER)
def test_a_command_of_an_earlier_version_names_its_successor(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    assert run("train", name, "--data", "stacks", "--out", "out", "--log-json", log) == 2
    said = capsys.readouterr().err
    assert f"calid train {name}" in said
    assert FORMER[name] in said
    assert json.loads(log.read_text())["exit_code"] == 2
