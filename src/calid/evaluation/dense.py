"""Dense truth: hearts that are known everywhere are made sparse, and compared everywhere.

A dense heart is integrated over slice profiles of 8 mm every 10 mm. Methods answer every
2 mm between the outermost slices. They are compared with what the scanner would have given
there, the heart integrated over the same profile; see `Scan.truth_thickness` for thin truth.
There is no noise. Images are clipped to [0, 1].
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from calid.evaluation.case import Case
from calid.evaluation.dense_cases import DenseCase, Scan, dense_case
from calid.evaluation.downstream import Labeller
from calid.evaluation.hidden_slices import image_figures, recoded
from calid.evaluation.metrics import psnr, ssim
from calid.evaluation.protocol import Figures, Protocol
from calid.inference.model import Model
from calid.io import Reader, read_stack
from calid.labels import LV, RV
from calid.segmentation.measures import slab_widths

__all__ = ["dense", "long_axis_figures", "smoothness"]


def dense(
    label: Labeller | None,
    autoencoder: Model | None,
    scan: Scan | None = None,
    reader: Reader = read_stack,
) -> Protocol:
    """The protocol.

    Parameters
    ----------
    label
        Segmentation of images ``(slices, height, width)`` of a spacing; none leaves the
        errors of volumes out.
    autoencoder
        Model whose autoencoder gives the ceiling row; none leaves it out.
    scan
        How hearts are made sparse.
    reader
        Reads the volumes.
    """

    def load(path: Path) -> Case:
        return dense_case(path, scan, reader)

    errors = ("lv_error", "rv_error") if label else ()
    return Protocol(
        name="dense",
        load=load,
        score=lambda case, answer: _score(cast(DenseCase, case), answer, label),
        columns=("psnr", "ssim", "sharpness", "psnr_long", "ssim_long", "smoothness", *errors),
        headline=("psnr", "ssim", "ssim_long"),
        lower_is_better=frozenset({"hfen", *errors}),
        ceilings={"autoencoder": recoded(autoencoder)} if autoencoder else {},
    )


def smoothness(volume: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Mean absolute second difference through-plane over that of the truth; 1 is right.

    More is combing or steps, less is blur.

    Parameters
    ----------
    volume, truth
        Shape ``(frames, slices, height, width)``, at least three evenly spaced slices.

    Returns
    -------
    float
        NaN if the truth has no curvature.
    """
    ours, theirs = (float(np.abs(np.diff(v, 2, axis=1)).mean()) for v in (volume, truth))
    return ours / theirs if theirs > 0 else math.nan


def long_axis_figures(
    volume: NDArray[np.float32], truth: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """PSNR and SSIM of both stacks of long-axis planes, pooled.

    Voxels are taken as they are: a window of SSIM is 11 pixels in-plane and 11 slices high,
    whatever their spacing. Acquired slices are part of the planes. Planes without error,
    which the edges of an image can have, are left out of the PSNR unless there are no others.

    Parameters
    ----------
    volume, truth
        Shape ``(frames, slices, height, width)``, at least 11 along every axis but the first.

    Returns
    -------
    dict
        ``psnr_long`` and ``ssim_long``, one figure each, shape ``(1,)``.
    """
    ours, theirs = (torch.from_numpy(v) for v in (volume, truth))
    orientations = ((0, 2, 1, 3), (0, 3, 1, 2))
    figures: dict[str, NDArray[np.float64]] = {}
    for name, metric in (("psnr_long", psnr), ("ssim_long", ssim)):
        found = (metric(ours.permute(o), theirs.permute(o)).flatten() for o in orientations)
        planes = torch.cat(list(found))
        finite = planes[planes.isfinite()]
        mean = (finite if len(finite) else planes).double().mean()
        figures[name] = np.array([float(mean)])
    return figures


def _score(case: DenseCase, answer: NDArray[np.float32], label: Labeller | None) -> Figures:
    """Short-axis figures one a target, all others one a case."""
    frames, targets, height, width = answer.shape
    flat = (x.reshape(-1, height, width) for x in (answer, case.truth))
    figures: dict[str, NDArray[np.float64]] = {
        name: values.reshape(frames, targets).mean(0)
        for name, values in image_figures(*flat).items()
    }
    positions = np.concatenate([case.positions, case.targets])
    order = np.argsort(positions)
    volume = np.concatenate([case.images, answer], 1)[:, order].clip(0, 1)
    truth = case.reference.clip(0, 1)
    figures |= long_axis_figures(volume, truth)
    figures["smoothness"] = np.array([smoothness(volume, truth)])
    if label:
        figures |= _volume_errors(case, volume[0], positions[order], label)
    return figures


def _volume_errors(
    case: DenseCase,
    images: NDArray[np.float32],
    positions: NDArray[np.float64],
    label: Labeller,
) -> dict[str, NDArray[np.float64]]:
    """Distance of both cavities from their exact volumes in percent; NaN where unknown."""
    if not case.millilitres:
        return {name: np.array([math.nan]) for name in ("lv_error", "rv_error")}
    labels = label(images, case.spacing)
    per_pixel = slab_widths(positions) * case.spacing[0] * case.spacing[1] / 1000
    errors = {}
    for name, c in (("lv", LV), ("rv", RV)):
        found = float((labels == c).sum((1, 2)) @ per_pixel)
        errors[f"{name}_error"] = np.array([100 * abs(found / case.millilitres[name] - 1)])
    return errors
