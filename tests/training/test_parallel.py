from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser

from calid.cli.train import (
    TrainAutoencoder,
    TrainInterpolator,
    TrainSegmentation,
    TrainTemporal,
)
from calid.data.phantom import HeartPhantom
from calid.io import write_volume
from calid.models.store import load_interpolator
from calid.stack import Volume
from calid.training.parallel import own_device, process_group
from calid.weights import weights_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Stacks of five small synthetic hearts; the last is for validation."""
    out = tmp_path_factory.mktemp("hearts")
    for seed in range(5):
        stack = HeartPhantom(seed).acquire(slices=5, spacing=3.0, start=10.0)
        volume = Volume(
            stack.data, stack.affine, stack.positions, np.ones(5, bool), stack.frame_times
        )
        place = out / ("validation" if seed == 4 else "train")
        place.mkdir(exist_ok=True)
        write_volume(volume, place / f"heart{seed}_ED.nii.gz")
    return out


def train(
    folder: Path, out: Path, preset: str, processes: int, start: Path | None = None
) -> list[dict[str, float]]:
    """Two steps of stage 2 under torchrun; the log's loss lines."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc-per-node={processes}", "-m", "calid", "train", "interpolator",
               "--data", str(folder / "train"), "--validation", str(folder / "validation"),
               "--out", str(out), "--preset", preset, "--steps", "2", "--size", "32",
               "--stacks", "1", "--targets", "2", "--device", "cpu", "--threads", "1"]  # fmt: skip
    if start is not None:
        command += ["--start-from", str(start)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


@pytest.mark.nightly
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_two_processes_train_one_model(folder, tmp_path, preset):
    losses = train(folder, tmp_path, preset, processes=2)
    assert [line["step"] for line in losses] == [1, 2]
    assert all(np.isfinite(line["loss"]) for line in losses)
    assert load_file(tmp_path / f"{preset}.safetensors")


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


@pytest.mark.nightly
def test_released_weights_are_tuned_by_several_processes_and_without_stale_layers(folder, tmp_path):
    released = weights_path("default")
    train(folder, tmp_path, "default", processes=2, start=released)
    tuned = load_interpolator(tmp_path / "default.safetensors", "default")
    assert not tuned.sees_films
    assert load_interpolator(released, "default").sees_films


def test_torchrun_takes_no_option_of_a_training_for_one_of_its_own():
    theirs = [option for action in get_args_parser()._actions for option in action.option_strings]
    trainings = (TrainAutoencoder, TrainInterpolator, TrainTemporal, TrainSegmentation)
    ours = {f.name.replace("_", "-") for training in trainings for f in fields(training)}
    assert "start-from" in ours
    assert not [o for o in ours for t in theirs if t.startswith(f"--{o}")]
