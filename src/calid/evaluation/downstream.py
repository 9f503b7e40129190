"""Downstream: hidden slices are reconstructed, segmented, and compared with manual labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calid.errors import DataError
from calid.evaluation.hidden_slices import hidden_slices
from calid.evaluation.metrics import dice, hausdorff95
from calid.evaluation.protocol import Case, Figures, Protocol
from calid.inference.model import Model
from calid.io import Reader, read
from calid.io.labels import CLASSES, LV, RV, LabelMap
from calid.segmentation.measures import slab_widths

__all__ = ["Labeller", "downstream"]

Labeller = Callable[[NDArray[np.float32], tuple[float, float]], NDArray[np.uint8]]
"""Images ``(slices, height, width)`` in window units and their spacing to labels."""


def downstream(
    label: Labeller,
    autoencoder: Model | None,
    reader: Reader = read,
    own_pixels: bool = False,
    label_map: LabelMap | None = None,
) -> Protocol:
    """The protocol.

    Dice is taken over all hidden slices of a stack at once; the Hausdorff distance slice by
    slice. Volumes come from the segmented kept and reconstructed slices together, and are
    compared with Simpson's rule on the manual labels of the same slices.

    ``label`` is the segmentation network, trained on real slices of other people; the other
    parameters are those of `calid.evaluation.hidden_slices.hidden_slices`.
    """
    plain = hidden_slices(autoencoder, reader, own_pixels, label_map)
    overlaps = [f"dice_{name}" for name in CLASSES]
    distances = [f"hd95_{name}" for name in CLASSES]
    errors = ["lv_error_ml", "rv_error_ml", "lv_ef_error", "rv_ef_error"]
    latest: list[tuple[Case, NDArray[np.uint8]]] = []

    def load(path: Path) -> Case:
        case = plain.load(path)
        if case.truth_labels is None:
            raise DataError(path, "No manual labels are beside the stack.", "Add X_label.nii.gz.")
        return case

    def score(case: Case, answer: NDArray[np.float32]) -> Figures:
        # Kept slices are the same whatever the method: they are labelled once a case.
        if not latest or latest[0][0] is not case:
            latest[:] = [(case, label(np.clip(case.images[0], 0, 1), case.spacing))]
        return _score(case, latest[0][1], label(np.clip(answer[0], 0, 1), case.spacing))

    return Protocol(
        name="downstream",
        load=load,
        score=score,
        columns=("dice", *overlaps, "hd95", *distances, *errors),
        headline=("dice", "hd95"),
        lower_is_better=frozenset({"hd95", *distances, *errors}),
        ceilings={**plain.ceilings, "real slice": lambda case: case.truth},
        goal="real slice",
        combine=_ejection,
    )


def _score(case: Case, kept: NDArray[np.uint8], found: NDArray[np.uint8]) -> Figures:
    """Figures of the labels of kept and of reconstructed slices."""
    assert case.truth_labels is not None  # load saw to it
    assert case.labels is not None
    truth = case.truth_labels[0]
    figures: dict[str, float] = {}
    for name, c in CLASSES.items():
        figures[f"dice_{name}"] = dice(found == c, truth == c)
        figures[f"hd95_{name}"] = _mean(
            [hausdorff95(f == c, t == c, case.spacing) for f, t in zip(found, truth, strict=True)]
        )
    for metric in ("dice", "hd95"):
        figures[metric] = _mean([figures[f"{metric}_{name}"] for name in CLASSES])
    positions = np.concatenate([case.positions, case.targets])
    order = np.argsort(positions)
    widths = slab_widths(positions[order])
    whole, manual = (
        np.concatenate(parts)[order] for parts in ((kept, found), (case.labels[0], truth))
    )
    for name, c in (("lv", LV), ("rv", RV)):
        ours, theirs = (
            float((m == c).sum((1, 2)) * case.spacing[0] * case.spacing[1] @ widths / 1000)
            for m in (whole, manual)
        )
        figures[f"{name}_error_ml"] = abs(ours - theirs)
        figures[f"{name}_ml"], figures[f"{name}_manual_ml"] = ours, theirs
    return {name: np.array([value]) for name, value in figures.items()}


def _mean(values: list[float]) -> float:
    present = [v for v in values if not math.isnan(v)]
    return float(np.mean(present)) if present else math.nan


def _ejection(cases: Mapping[str, Figures]) -> dict[str, float]:
    """Error of the ejection fraction in percentage points, of subjects with ED and ES."""
    out = {}
    for name in ("lv", "rv"):
        pairs = []
        for kind in (f"{name}_ml", f"{name}_manual_ml"):
            volumes = {c.rsplit("_", 1)[-1]: float(f[kind][0]) for c, f in cases.items()}
            full = volumes.get("ED", 0.0) > 0 and "ES" in volumes
            pairs.append(100 * (1 - volumes["ES"] / volumes["ED"]) if full else math.nan)
        out[f"{name}_ef_error"] = abs(pairs[0] - pairs[1])
    return out
