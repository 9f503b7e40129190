"""Downstream: hidden slices are reconstructed, segmented, and compared with manual labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calid.errors import DataError
from calid.evaluation.case import Case
from calid.evaluation.hidden_slices import load_case, recoded
from calid.evaluation.overlap import dice, hausdorff95
from calid.evaluation.protocol import Figures, Protocol
from calid.inference.model import Model
from calid.io import Reader, read
from calid.io.labels import LabelMap
from calid.labels import CLASSES, LV, RV
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
    slice. Volumes are those of kept and reconstructed slices together, segmented, against
    Simpson's rule on the manual labels of the same slices.

    Parameters
    ----------
    label
        Segmentation network, trained on real slices of other people.
    autoencoder
        Model whose autoencoder gives a ceiling row; none leaves it out.
    reader
        Reads the stacks.
    own_pixels, label_map
        As `calid.evaluation.hidden_slices.hidden_slices`.
    """
    ceilings: dict[str, Callable[[Case], NDArray[np.float32]]] = {}
    if autoencoder:
        ceilings["autoencoder"] = recoded(autoencoder)
    ceilings["real slice"] = lambda case: case.truth
    overlaps = [f"dice_{name}" for name in CLASSES]
    distances = [f"hd95_{name}" for name in CLASSES]
    errors = ["lv_error_ml", "rv_error_ml", "lv_ef_error", "rv_ef_error"]
    kept = _KeptSlices(label)

    def score(case: Case, answer: NDArray[np.float32]) -> Figures:
        return _score(case, kept.labels(case), label(np.clip(answer[0], 0, 1), case.spacing))

    return Protocol(
        name="downstream",
        load=partial(_load, reader=reader, own_pixels=own_pixels, label_map=label_map),
        score=score,
        columns=("dice", *overlaps, "hd95", *distances, *errors),
        headline=("dice", "hd95"),
        lower_is_better=frozenset({"hd95", *distances, *errors}),
        ceilings=ceilings,
        goal="real slice",
        combine=_ejection,
    )


class _KeptSlices:
    """Labels of a case's kept slices, which are the same whatever the method."""

    def __init__(self, label: Labeller) -> None:
        self._label = label
        self._latest: tuple[Case, NDArray[np.uint8]] | None = None

    def labels(self, case: Case) -> NDArray[np.uint8]:
        """Of one case after the other; asked again about the latest, they are at hand."""
        if self._latest is None or self._latest[0] is not case:
            self._latest = case, self._label(np.clip(case.images[0], 0, 1), case.spacing)
        return self._latest[1]


def _load(path: Path, reader: Reader, own_pixels: bool, label_map: LabelMap | None) -> Case:
    case = load_case(path, reader, own_pixels, label_map)
    if case.truth_labels is None:
        raise DataError(path, "No manual labels are beside the stack.", "Add X_label.nii.gz.")
    return case


def _score(case: Case, kept: NDArray[np.uint8], found: NDArray[np.uint8]) -> Figures:
    """Figures of the labels of kept and of reconstructed slices."""
    assert case.truth_labels is not None  # _load saw to it
    assert case.labels is not None
    truth = case.truth_labels[0]
    figures: dict[str, float] = {}
    for name, c in CLASSES.items():
        figures[f"dice_{name}"] = dice(found == c, truth == c)
        apart = [
            hausdorff95(f == c, t == c, case.spacing) for f, t in zip(found, truth, strict=True)
        ]
        figures[f"hd95_{name}"] = _mean(apart)
    figures["dice"] = _mean([figures[f"dice_{name}"] for name in CLASSES])
    figures["hd95"] = _mean([figures[f"hd95_{name}"] for name in CLASSES])
    order = np.argsort(np.concatenate([case.positions, case.targets]))
    whole = np.concatenate([kept, found])[order]
    manual = np.concatenate([case.labels[0], truth])[order]
    positions = np.concatenate([case.positions, case.targets])[order]
    for name, c in (("lv", LV), ("rv", RV)):
        ours, theirs = (_millilitres(m == c, positions, case.spacing) for m in (whole, manual))
        figures[f"{name}_error_ml"] = abs(ours - theirs)
        figures[f"{name}_ml"], figures[f"{name}_manual_ml"] = ours, theirs
    return {name: np.array([value]) for name, value in figures.items()}


def _millilitres(
    mask: NDArray[np.bool_], positions: NDArray[np.float64], spacing: tuple[float, float]
) -> float:
    areas = mask.sum((1, 2)) * spacing[0] * spacing[1]
    return float(areas @ slab_widths(positions) / 1000)


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
