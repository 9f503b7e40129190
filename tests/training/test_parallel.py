from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from calid.data.phantom import HeartPhantom
from calid.io import write_volume
from calid.stack import Volume


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


def train(folder: Path, out: Path, preset: str, processes: int) -> list[dict[str, float]]:
    """Two steps of stage 2 under torchrun; the log's loss lines."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc-per-node={processes}", "-m", "calid", "train", "interpolator",
               "--data", str(folder / "train"), "--validation", str(folder / "validation"),
               "--out", str(out), "--preset", preset, "--steps", "2", "--size", "32",
               "--stacks", "1", "--targets", "2", "--device", "cpu", "--threads", "1"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=300)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_two_processes_train_one_model(folder, tmp_path, preset):
    losses = train(folder, tmp_path, preset, processes=2)
    assert [line["step"] for line in losses] == [1, 2]
    assert all(np.isfinite(line["loss"]) for line in losses)
    assert load_file(tmp_path / f"{preset}.safetensors")
