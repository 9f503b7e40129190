from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from training.test_stages import CPU, SHORT, objective_of, task_of

from calid.cli.main import main
from calid.data.phantom import HeartPhantom
from calid.io import write_volume
from calid.stack import Volume
from calid.training.finisher import FinishObjective
from calid.training.interpolator import TupleBatch
from calid.training.loop import fit


def test_the_networks_before_the_finisher_are_kept(tmp_path: Path) -> None:
    task = task_of("finisher", tmp_path / "w.safetensors")
    kept = {k: v.clone() for k, v in task.objective.state_dict().items()}
    fit(task, tmp_path, SHORT, CPU, resume=False)
    for name, value in task.objective.state_dict().items():
        assert torch.equal(value, kept[name]) != name.startswith("finisher."), name


def test_walls_that_come_to_lie_elsewhere_cost() -> None:
    """The labels of the acquired slices are carried by what the finisher does."""
    objective = objective_of("finisher")
    assert isinstance(objective, FinishObjective)
    with torch.no_grad():
        batch = task_of("finisher", Path("unused")).batch(0, 0)
        assert isinstance(batch, TupleBatch)
        before = objective(batch)["walls"]
        objective.finisher.fields.bias[:4] = 1.0
        assert float(objective(batch)["walls"]) > 1.5 * float(before)


def test_the_command_leaves_a_finisher_that_reconstructs(tmp_path: Path) -> None:
    for folder, seed in (("data", 1), ("held", 2)):
        stack = HeartPhantom(seed).acquire(slices=5, start=0.0, field_of_view=48.0, thickness=0.0)
        kept = np.ones(5, np.bool_)
        volume = Volume(stack.data, stack.affine, stack.positions, kept, stack.frame_times)
        (tmp_path / folder).mkdir()
        write_volume(volume, tmp_path / folder / f"p{seed}_ED.nii.gz")
    data, held, out = (str(tmp_path / name) for name in ("data", "held", "out"))
    main(["train", "finisher", "--data", data, "--validation", held, "--out", out, "--steps", "1",
          "--size", "32", "--stacks", "1", "--targets", "1", "--device", "cpu"])  # fmt: skip
    dense = tmp_path / "dense.nii.gz"
    stack_file = str(tmp_path / "held" / "p2_ED.nii.gz")
    main(["reconstruct", stack_file, str(dense), "--factor", "2", "--weights", out])
    record = json.loads((tmp_path / "dense.json").read_text())
    assert sorted(record["weights_sha256"]) == ["autoencoder", "default", "finisher"]
