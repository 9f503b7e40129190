"""Train the segmentation network on labelled slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calid.data.augment import augment_intensity, crop, random_pose, seeded
from calid.data.bank import LabelledStack
from calid.errors import DataError
from calid.evaluation.metrics import dice
from calid.io.labels import CLASSES
from calid.models.layers import channels_last
from calid.models.store import save_tensors
from calid.segmentation.segment import KIND, SegmentationNetwork
from calid.training.loop import Task

__all__ = ["LabelledBatch", "SegmentationObjective", "segmentation_task"]


@dataclass(frozen=True)
class LabelledBatch:
    """Images ``(batch, 1, size, size)`` in window units and labels ``(batch, size, size)``."""

    images: Tensor
    labels: Tensor


class SegmentationObjective(nn.Module):
    """Cross-entropy plus soft Dice (Milletari et al., 3DV 2016), each class once a batch."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: LabelledBatch) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        logits = self.network(batch.images)
        entropy = F.cross_entropy(logits, batch.labels)
        share = logits.softmax(1)[:, 1:]
        truth = F.one_hot(batch.labels, logits.shape[1]).movedim(-1, 1)[:, 1:].to(share)
        both = (share * truth).sum((0, 2, 3))
        either = (share.square() + truth).sum((0, 2, 3))
        overlap = (2 * both + 1) / (either + 1)
        loss = entropy + (1 - overlap).mean()
        return {"loss": loss, "entropy": entropy.detach(), "overlap": overlap.mean().detach()}


def segmentation_task(
    network: SegmentationNetwork,
    train: Sequence[LabelledStack],
    held_out: Sequence[LabelledStack],
    weights: Path,
    size: int,
    batch: int,
    seed: int,
    device: torch.device,
) -> Task:
    """Everything the loop needs.

    Parameters
    ----------
    train, held_out
        Labelled stacks of different subjects.
    weights
        File that is written.
    size
        Crop in pixels, a multiple of 16.
    batch
        Slices a step and process.
    """
    if not train or not held_out:
        raise DataError(
            "training data", "Too few labelled subjects to train and validate on.", "Add more."
        )
    objective = channels_last(SegmentationObjective(network))
    places = [(i, j) for i, stack in enumerate(train) for j in range(len(stack.images))]

    def draw(step: int, rank: int) -> LabelledBatch:
        generator = seeded(seed, step, 5, rank)
        images, labels = [], []
        for pick in torch.randint(len(places), (batch,), generator=generator).tolist():
            stack, number = train[places[pick][0]], places[pick][1]
            image = torch.from_numpy(stack.images[number])[None]
            mask = torch.from_numpy(stack.labels[number])
            spare = max(0.0, (min(image.shape[-2:]) - size) / 2)
            pose = random_pose(generator, shift=spare + size / 16, zoom=1.35)
            images.append(augment_intensity(crop(image, size, pose), generator))
            indicators = F.one_hot(mask.long(), network.config.classes).movedim(-1, 0).float()
            labels.append(crop(indicators, size, pose).argmax(0))
        shown = torch.stack(images).to(device, memory_format=torch.channels_last)
        return LabelledBatch(shown, torch.stack(labels).to(device))

    def validate() -> Mapping[str, float]:
        rows = []
        for stack in held_out:
            images = torch.from_numpy(stack.images)
            whole = tuple(n // 16 * 16 for n in images.shape[-2:])
            image, truth = (_centre(x, whole) for x in (images, torch.from_numpy(stack.labels)))
            logits = objective.network(image[:, None].to(device))
            found = logits.argmax(1).cpu().numpy()
            rows.append([dice(found == c, truth.numpy() == c) for c in CLASSES.values()])
        means = np.nanmean(np.array(rows), axis=0)
        named = dict(zip(CLASSES, means.tolist(), strict=True))
        return {"dice": float(means.mean()), **named}

    def export(figures: Mapping[str, float]) -> None:
        save_tensors(network, KIND, network.config, figures, weights)

    return Task(objective, draw, validate, export)


def _centre(images: Tensor, size: tuple[int, ...]) -> Tensor:
    top, left = ((n - s) // 2 for n, s in zip(images.shape[-2:], size, strict=True))
    return images[..., top : top + size[0], left : left + size[1]]
