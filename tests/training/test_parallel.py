from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser
from training import small_recipes

from calid.cli.train import (
    TrainAutoencoder,
    TrainDefault,
    TrainDiffusionAutoencoder,
    TrainPaper,
    TrainRegression,
    TrainSegmentation,
)
from calid.data.phantom import HeartPhantom
from calid.io import write_volume
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.store import save_autoencoder
from calid.stack import Volume
from calid.training.parallel import own_device, process_group


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Stacks of five small synthetic hearts, the last for validation, and weights of stage 1."""
    out = tmp_path_factory.mktemp("hearts")
    for seed in range(5):
        stack = HeartPhantom(seed).acquire(slices=5, spacing=3.0, start=10.0)
        volume = Volume(
            stack.data, stack.affine, stack.positions, np.ones(5, bool), stack.frame_times
        )
        place = out / ("validation" if seed == 4 else "train")
        place.mkdir(exist_ok=True)
        write_volume(volume, place / f"heart{seed}_ED.nii.gz")
    torch.manual_seed(0)
    sizes = AutoencoderConfig(2, (8, 8), (1, 1), (1, 1))
    save_autoencoder(Autoencoder(sizes), out / "autoencoder.safetensors", {})
    return out


def train(folder: Path, out: Path, name: str, stage: str, processes: int) -> list[dict[str, Any]]:
    """Two steps of a small recipe, under torchrun if in several processes; what each ends with."""
    command = [small_recipes.__file__, "train", name,
               "--data", str(folder / "train"), "--validation", str(folder / "validation"),
               "--autoencoder", str(folder / "autoencoder.safetensors"),
               "--out", str(out), "--device", "cpu", "--threads", "1"]  # fmt: skip
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [*torchrun, *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return [torch.load(out / f"{stage}-{rank}.pt") for rank in range(processes)]


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "stage"),
    [("default", "transport"), ("paper", "posterior"), ("regression", "regression"),
     ("diffusion-autoencoder", "diffusion-autoencoder")],
)  # fmt: skip
def test_two_processes_train_one_model_on_the_schedule_of_one(folder, tmp_path, name, stage):
    first, second = train(folder, tmp_path / "two", name, stage, processes=2)
    (alone,) = train(folder, tmp_path / "one", name, stage, processes=1)
    assert first["state"].keys() == alone["state"].keys()
    for key, value in first["state"].items():
        torch.testing.assert_close(value, second["state"][key], rtol=0, atol=0, msg=key)
    assert not all(value.equal(alone["state"][key]) for key, value in first["state"].items())
    assert first["config"] == second["config"] == alone["config"]
    assert first["examples"] + second["examples"] == alone["examples"] == small_recipes.BATCH
    for out in (tmp_path / "one", tmp_path / "two"):
        assert [step for step, _ in losses(out / stage)] == [1, 2]
        assert np.isfinite([loss for _, loss in losses(out / stage)]).all()
        assert load_file(out / f"{name}.safetensors")
    draws = (sorted((tmp_path / out / "tuples").iterdir()) for out in ("one", "two"))
    for one, two in zip(*draws, strict=True):
        made, same = load_file(one), load_file(two)
        assert all(made[key].equal(same[key]) for key in made), "the same tuples, made once"


def test_every_process_has_a_gpu_of_its_own(monkeypatch):
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert own_device(gpu) == gpu
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device(gpu) == torch.device("cuda", 3)
    assert own_device(cpu) == cpu
    assert chosen == [torch.device("cuda", 3)]


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(torch.device("cpu")) as parallel:
        assert not parallel
        assert not torch.distributed.is_initialized()


def test_a_group_is_made_once_by_the_outermost_that_needs_it(monkeypatch):
    done: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    dist = torch.distributed
    monkeypatch.setattr(dist, "init_process_group", lambda *a, **b: done.append("open"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: done.append("close"))
    monkeypatch.setattr(dist, "barrier", lambda: done.append("wait"))
    monkeypatch.setattr(dist, "is_initialized", lambda: "open" in done)
    cpu = torch.device("cpu")
    with process_group(cpu):
        for _ in range(2):
            with process_group(cpu) as parallel:
                assert parallel
    assert done == ["open", "wait", "wait", "wait", "close"]


def test_torchrun_takes_no_option_of_a_training_for_one_of_its_own():
    theirs = [option for action in get_args_parser()._actions for option in action.option_strings]
    trainings = (
        *(TrainAutoencoder, TrainDefault, TrainPaper, TrainRegression),
        *(TrainDiffusionAutoencoder, TrainSegmentation),
    )
    ours = {f.name.replace("_", "-") for training in trainings for f in fields(training)}
    assert ours >= {"start-from", "draws"}
    assert not [o for o in ours for t in theirs if t.startswith(f"--{o}")]
