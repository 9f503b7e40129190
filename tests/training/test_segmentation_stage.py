"""Training of the segmentation network: tiny, on painted hearts, a few steps on the CPU."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file

from calid.data.labelled import LabelledStack
from calid.io.labels import CLASSES
from calid.runtime import choose_runtime
from calid.segmentation.network import SegmentationConfig, SegmentationNetwork, load_segmentation
from calid.segmentation.segment import Segmenter
from calid.training.loop import FitConfig, Task, fit
from calid.training.segmentation import LabelledBatch, SegmentationObjective, segmentation_task

CPU = torch.device("cpu")
SIZE = 32
TINY = SegmentationConfig(widths=(8, 8, 16, 16), depth=(1, 1, 1, 1))
SHORT = FitConfig(steps=2, rate=1e-3, warmup=1, save_every=2, validate_every=2)
LONG = FitConfig(steps=40, rate=5e-3, warmup=4, save_every=1000, validate_every=1000)


def painted(seed: int, slices: int = 4) -> NDArray[np.uint8]:
    """Nested discs: LV in a ring, RV beside it, at another place in every stack."""
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(18, 24, 2)
    rows, columns = np.mgrid[:44, :42]
    labels = np.zeros((slices, 44, 42), np.uint8)
    for number, image in enumerate(labels):
        away = np.hypot(rows - y, columns - x)
        image[np.hypot(rows - y, columns - x - 12) < 8] = 1
        image[away < 11 - number] = 2
        image[away < 7 - number] = 3
    return labels


def stack(name: str, seed: int) -> LabelledStack:
    labels = painted(seed)
    noise = np.random.default_rng(seed).normal(0, 0.02, labels.shape)
    brightness = np.array([0.1, 0.9, 0.4, 1.0])[labels]
    return LabelledStack(
        name, f"{name}_ED", (brightness + noise).clip(0).astype(np.float32), labels
    )


TRAIN, HELD_OUT = [stack("a", 0), stack("b", 1)], [stack("c", 2)]


def network(seed: int = 0) -> SegmentationNetwork:
    torch.manual_seed(seed)
    return SegmentationNetwork(TINY)


def task_of(weights: Path, seed: int = 0) -> Task:
    return segmentation_task(
        network(), TRAIN, HELD_OUT, weights, SIZE, batch=4, seed=seed, device=CPU
    )


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Fixed(torch.nn.Module):
    """Scores that were given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits


@pytest.mark.usefixtures("precision")
@pytest.mark.slow
def test_the_loss_falls_on_one_repeated_batch(tmp_path: Path) -> None:
    task = task_of(tmp_path / "w.safetensors")
    batch = task.batch(0, 0)
    repeated = dataclasses.replace(task, batch=lambda step, rank: batch)
    fit(repeated, tmp_path, LONG, CPU, resume=False)
    steps = [line for line in lines_of(tmp_path) if "loss" in line]
    losses = [line["loss"] for line in steps]
    assert len(losses) == 40
    assert losses[-1] < 0.5 * losses[0]
    assert losses[-1] < losses[20]
    assert steps[-1]["overlap"] > steps[0]["overlap"] + 0.2
    assert steps[-1]["entropy"] < 0.5 * steps[0]["entropy"]


def test_the_loss_is_cross_entropy_plus_what_is_missing_of_the_overlap() -> None:
    labels = torch.from_numpy(painted(0)[:2, :40, :40]).long()
    batch = LabelledBatch(torch.zeros(2, 1, 40, 40), labels)
    right = 60.0 * torch.nn.functional.one_hot(labels, 4).movedim(-1, 1)
    terms = SegmentationObjective(Fixed(right))(batch)  # type: ignore[arg-type]
    assert float(terms["loss"].detach()) == pytest.approx(0, abs=1e-5)
    assert float(terms["overlap"]) == pytest.approx(1, abs=1e-5)
    # Scores that say nothing: a quarter everywhere.
    terms = SegmentationObjective(Fixed(torch.zeros(2, 4, 40, 40)))(batch)  # type: ignore[arg-type]
    pixels = labels.numel()
    overlaps = [
        (2 * n / 4 + 1) / (pixels / 16 + n + 1) for n in ((labels == c).sum() for c in (1, 2, 3))
    ]
    assert float(terms["entropy"]) == pytest.approx(np.log(4), abs=1e-5)
    assert float(terms["overlap"]) == pytest.approx(float(np.mean(overlaps)), abs=1e-5)
    expected = np.log(4) + 1 - float(np.mean(overlaps))
    assert float(terms["loss"].detach()) == pytest.approx(expected, abs=1e-5)


def test_batches_depend_on_seed_step_and_process_alone(tmp_path: Path) -> None:
    one, again = (task_of(tmp_path / "w.safetensors") for _ in range(2))
    batch, same = one.batch(3, 0), again.batch(3, 0)
    assert isinstance(batch, LabelledBatch)
    assert isinstance(same, LabelledBatch)
    assert torch.equal(batch.images, same.images)
    assert torch.equal(batch.labels, same.labels)
    assert batch.images.shape == (4, 1, SIZE, SIZE)
    assert batch.labels.shape == (4, SIZE, SIZE)
    assert batch.labels.dtype == torch.int64
    other_seed = task_of(tmp_path / "w.safetensors", seed=1)
    for other in (one.batch(4, 0), one.batch(3, 1), other_seed.batch(3, 0)):
        assert isinstance(other, LabelledBatch)
        assert not torch.equal(batch.images, other.images)


def test_labels_move_with_their_images(tmp_path: Path) -> None:
    # Augmentation changes brightness smoothly: within an image the order of tissues stays.
    task = task_of(tmp_path / "w.safetensors")
    seen: set[int] = set()
    for step in range(6):
        batch = task.batch(step, 0)
        assert isinstance(batch, LabelledBatch)
        for image, labels in zip(batch.images[:, 0], batch.labels, strict=True):
            present = set(labels.unique().tolist())
            seen |= present
            means = {c: float(image[labels == c].mean()) for c in present}
            if {0, 2, 3} <= present:
                assert means[0] < means[2] < means[3]
            if {0, 1, 2} <= present:
                assert means[0] < means[2] < means[1]
    assert seen == {0, 1, 2, 3}


def test_validation_is_dice_of_whole_stacks(tmp_path: Path) -> None:
    task = task_of(tmp_path / "w.safetensors")
    with torch.no_grad():
        figures = dict(task.validate())
    assert set(figures) == {"dice", *CLASSES}
    assert all(0 <= v <= 1 for v in figures.values())
    assert figures["dice"] == pytest.approx(np.mean([figures[c] for c in CLASSES]))
    objective = task.objective
    assert isinstance(objective, SegmentationObjective)
    # 44 x 42 pixels are cut to 32 x 32 in the middle.
    labels = torch.from_numpy(HELD_OUT[0].labels[:, 6:38, 5:37]).long()
    right = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    objective.network = Fixed(right)  # type: ignore[assignment]
    with torch.no_grad():
        assert set(task.validate().values()) == {1.0}


@pytest.mark.usefixtures("precision")
def test_the_exported_file_gives_the_averaged_network_back(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    fit(task_of(path), tmp_path, SHORT, CPU, resume=False)
    loaded = load_segmentation(path)
    assert not loaded.training
    assert loaded.config == TINY
    state = load_file(tmp_path / "checkpoint.safetensors")
    for key, parameter in loaded.named_parameters():
        average = state[f"average/network.{key}"]
        torch.testing.assert_close(parameter.data, average.half().float(), rtol=0, atol=0)
    with safe_open(path, "np") as store:
        figures = json.loads(store.metadata()["figures"])
    (validation,) = [line["validation"] for line in lines_of(tmp_path) if "validation" in line]
    assert figures == {**validation, "step": 2}
    labels = Segmenter(loaded, choose_runtime("cpu")).label_slices(HELD_OUT[0].images, (1.5, 1.5))
    assert labels.shape == HELD_OUT[0].labels.shape
