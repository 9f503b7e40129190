"""What is particular to the training of the segmentation network: tiny, on painted hearts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training.stages import HELD_OUT_LABELLED, labelled, task_of

from calid.io.labels import CLASSES
from calid.training.segmentation import LabelledBatch, SegmentationObjective


class Fixed(torch.nn.Module):
    """Scores that were given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_the_loss_is_cross_entropy_plus_what_is_missing_of_the_overlap() -> None:
    labels = torch.from_numpy(labelled("a", 0).labels[:2, :40, :40]).long()
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


def test_labels_move_with_their_images(tmp_path: Path) -> None:
    # Augmentation changes brightness smoothly: within an image the order of tissues stays.
    task = task_of("segmentation", tmp_path / "w.safetensors")
    seen: set[int] = set()
    for step in range(6):
        batch = task.draw(step, 0)
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
    task = task_of("segmentation", tmp_path / "w.safetensors")
    with torch.no_grad():
        figures = dict(task.validate())
    assert set(figures) == {"dice", *CLASSES}
    assert all(0 <= v <= 1 for v in figures.values())
    assert figures["dice"] == pytest.approx(np.mean([figures[c] for c in CLASSES]))
    objective = task.objective
    assert isinstance(objective, SegmentationObjective)
    # 44 x 42 pixels are cut to 32 x 32 in the middle.
    labels = torch.from_numpy(HELD_OUT_LABELLED[0].labels[:, 6:38, 5:37]).long()
    right = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    objective.network = Fixed(right)  # type: ignore[assignment]
    with torch.no_grad():
        assert set(task.validate().values()) == {1.0}
