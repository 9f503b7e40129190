"""Stage 4: train the finisher on hidden slices; the networks before it are kept.

What is hidden says how its picture should have looked, and its labels say where walls should
have come to lie: labels of the acquired slices are carried as the slices are, and have to meet
those of the hidden one. They are drawn by the package's segmentation network, so that no manual
labels are needed, and only for training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from calid.evaluation.metrics import ssim
from calid.models.autoencoder import Autoencoder
from calid.models.finisher import KIND, Finisher
from calid.models.interpolator import Filled, Interpolator
from calid.models.motion import warp
from calid.models.store import save_tensors
from calid.models.surroundings import Surroundings
from calid.training.interpolator import TupleBatch, TupleObjective

__all__ = ["FinishObjective"]

REGISTERED, WALLS, STRUCTURE = 0.5, 1.5, 0.7
"""Weights of the terms beside the squared error of the mean; see `FinishObjective.forward`."""

FLOOR = 0.004
"""Squared window units that are expected even where both slices agree."""


class FinishObjective(TupleObjective):
    """Squared error and structure of what the finisher makes of a hidden slice, and its walls.

    Parameters
    ----------
    finisher
        What is trained.
    interpolator, autoencoder
        Of stages 1 and 2; frozen.
    label
        Images ``(slices, 1, height, width)`` to indicators ``(slices, classes, height,
        width)``: `calid.segmentation.segment.Segmenter.one_hot`.
    """

    interpolator: Interpolator

    def __init__(
        self,
        finisher: Finisher,
        interpolator: Interpolator,
        autoencoder: Autoencoder,
        label: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.finisher, self.label = finisher, label
        self.interpolator = interpolator.requires_grad_(False)
        self.autoencoder = autoencoder.requires_grad_(False)
        self.per_side = interpolator.reach

    def forward(self, batch: TupleBatch) -> dict[str, Tensor]:
        """Loss terms of a batch.

        Squared errors count in units of what is to be expected there: the difference of the
        registered slices, and how far the target is from them.
        """
        truth = batch.acquired.images[batch.target]
        with torch.no_grad():
            filled, _ = self.interpolator.known(batch.acquired, batch.context)
            decoded = self.autoencoder.decode(filled.latents)
        assert filled.around is not None
        apart = (filled.around.moved[:, :1] - filled.around.moved[:, 1:]).square()
        gate = filled.around.gate
        usual = gate.square() * (apart.mean((1, 2, 3), keepdim=True) + FLOOR) + 1e-4
        mean, seen = self.finisher.finish(decoded, filled.around)
        unlike = _unlike(mean, truth) + REGISTERED * _unlike(seen.blended, truth)
        terms = {
            "mean": ((mean - truth).square() / usual).mean(),
            "registered": ((seen.blended - truth).square() / usual).mean(),
            "walls": (self._misplaced(seen, truth) / gate.square()).mean(),
            "structure": (unlike / gate.flatten()).mean(),
        }
        loss = terms["mean"] + REGISTERED * terms["registered"]
        loss = loss + WALLS * terms["walls"] + STRUCTURE * terms["structure"]
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}

    def _misplaced(self, seen: Surroundings, truth: Tensor) -> Tensor:
        """Squared error of labels carried as the slices are, at half resolution."""
        near = seen.neighbours
        with torch.no_grad():
            wanted = F.avg_pool2d(self.label(truth), 2)
            given = F.avg_pool2d(self.label(near.nearest.flatten(0, 1)[:, None]), 2)
        shift = F.avg_pool2d(near.displacement.flatten(0, 1), 2) / 2
        carried = warp(given, shift).unflatten(0, (-1, 2))
        share = F.avg_pool2d(seen.share.expand_as(near.nearest), 2)
        found = (share[:, :, None] * carried).sum(1)
        misplaced: Tensor = (found - wanted).square().sum(1, keepdim=True)
        return misplaced

    def picture(self, filled: Filled, autoencoder: Autoencoder) -> Tensor:
        """See `TupleObjective.picture`."""
        assert filled.around is not None
        return self.finisher.finish(autoencoder.decode(filled.latents), filled.around)[0]

    def save(self, path: Path, figures: Mapping[str, float]) -> None:
        """See `TupleObjective.save`."""
        save_tensors(self.finisher, KIND, self.finisher.config, figures, path)


def _unlike(found: Tensor, truth: Tensor) -> Tensor:
    """One less the structural similarity, ``(targets,)``."""
    return 1 - ssim(found, truth)[:, 0].to(found)
