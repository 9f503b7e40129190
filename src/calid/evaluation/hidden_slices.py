"""Hidden slices: every second real slice is hidden, reconstructed, and compared.

Only hidden slices between two kept ones count. Intensities are scaled by the percentiles of the
kept slices and clipped to [0, 1]. The compared square is 192 mm wide. For stills, only the first
frame is used and the square lies around the heart. For films, slices are hidden in all frames and
motion over time is judged too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import EllipsisType

import numpy as np
import torch
from numpy.typing import NDArray

from calid.data.bank import hide_alternate, label_file, labels_on_grid, subject_of
from calid.data.intensity import IntensityWindow
from calid.errors import DataError
from calid.evaluation.metrics import flicker, hfen, psnr, sharpness, ssim, temporal_error
from calid.evaluation.protocol import Case, Figures, Protocol
from calid.geometry.grid import PIXEL_SPACING, NetworkGrid, resample
from calid.inference.model import FEWEST_FRAMES, Model
from calid.io import Reader, read, read_stack
from calid.io.find import plain_stem
from calid.io.labels import LabelMap

__all__ = ["film", "hidden_slices", "image_figures", "load_case", "load_film", "recoded"]

REGION = 192.0
"""Side of the compared square in mm."""


def hidden_slices(
    autoencoder: Model | None,
    reader: Reader = read,
    own_pixels: bool = False,
    label_map: LabelMap | None = None,
) -> Protocol:
    """The protocol of stills.

    Parameters
    ----------
    autoencoder
        Model whose autoencoder gives the ceiling row; none leaves it out.
    reader
        Reads the stacks.
    own_pixels
        Compare in the pixels of the images, as a user gets them; else in pixels of 1.5 mm.
    label_map
        Of manual labels, as `calid.io.labels.parse_label_map` gives it.
    """
    return Protocol(
        name="hidden-slices",
        load=partial(load_case, reader=reader, own_pixels=own_pixels, label_map=label_map),
        score=lambda case, answer: image_figures(answer, case.truth),
        columns=("psnr", "ssim", "hfen", "sharpness"),
        headline=("psnr", "ssim"),
        lower_is_better=frozenset({"hfen"}),
        ceilings={"autoencoder": recoded(autoencoder)} if autoencoder else {},
    )


def film(autoencoder: Model | None, reader: Reader = read, own_pixels: bool = False) -> Protocol:
    """The protocol of films; parameters are those of `hidden_slices`."""

    def score(case: Case, answer: NDArray[np.float32]) -> Figures:
        shown, wanted = (np.clip(x, 0, 1) for x in (answer, case.truth))
        return image_figures(shown, wanted) | {
            "temporal_error": temporal_error(shown, wanted),
            "flicker": flicker(shown, wanted),
        }

    return Protocol(
        name="film",
        load=partial(load_film, reader=reader, own_pixels=own_pixels),
        score=score,
        columns=("psnr", "ssim", "hfen", "sharpness", "temporal_error", "flicker"),
        headline=("psnr", "temporal_error"),
        lower_is_better=frozenset({"hfen", "temporal_error"}),
        ceilings={"autoencoder": recoded(autoencoder)} if autoencoder else {},
    )


def recoded(model: Model) -> Callable[[Case], NDArray[np.float32]]:
    """The true slices through the autoencoder: no answer of its latents can be better."""
    return lambda case: np.stack([model.recode(frame, case.spacing) for frame in case.truth])


def image_figures(
    prediction: NDArray[np.float32], truth: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """PSNR, SSIM, HFEN and sharpness of images clipped to [0, 1], one figure a target.

    Parameters
    ----------
    prediction, truth
        Shape ``(targets, height, width)`` or ``(frames, targets, height, width)``, window units.
        Figures are means over the frames.
    """
    targets, height, width = truth.shape[-3:]
    shown, wanted = (
        torch.from_numpy(np.clip(x, 0, 1).reshape(-1, height, width)) for x in (prediction, truth)
    )
    metrics = {"psnr": psnr, "ssim": ssim, "hfen": hfen, "sharpness": sharpness}
    return {
        name: metric(shown, wanted).double().numpy().reshape(-1, targets).mean(0)
        for name, metric in metrics.items()
    }


def load_case(
    path: Path,
    reader: Reader = read,
    own_pixels: bool = False,
    label_map: LabelMap | None = None,
) -> Case:
    """Read the first frame of a stack, hide slices, and cut the region around the heart.

    The centre is that of the bounding box of the labels beside the file (``_label`` or
    ``_lv``), which are used for nothing else in the images; without labels, that of the image.

    Raises
    ------
    DataError
        If the stack has fewer than three slices: nothing can be hidden.
    """
    return _load(path, reader, own_pixels, label_map, is_film=False)


def load_film(path: Path, reader: Reader = read, own_pixels: bool = False) -> Case:
    """Read a cine stack, hide slices in all frames, and cut the region about its centre.

    Raises
    ------
    DataError
        If the stack has fewer than three slices (nothing can be hidden) or fewer than four
        frames (a heartbeat cannot be told from noise).
    """
    return _load(path, reader, own_pixels, None, is_film=True)


def _load(
    path: Path, reader: Reader, own_pixels: bool, label_map: LabelMap | None, is_film: bool
) -> Case:
    stack = reader(path)
    if stack.n_slices < 3:
        raise DataError(path, "Fewer than three slices: none can be hidden.", "Leave it out.")
    if is_film and stack.n_frames < FEWEST_FRAMES:
        raise DataError(
            path, f"{stack.n_frames} frames are no film.", "Give a cine stack of 4 frames or more."
        )
    kept, hidden = hide_alternate(stack.n_slices)
    frames = stack.data if is_film else stack.data[:1]
    window = IntensityWindow.of(frames[:, kept], stack.intensity)
    fine, spacing = compared(window.normalise(frames), stack.pixel_spacing, own_pixels)
    centre = None if is_film else _label_centre(path)
    cut = region(fine.shape[-2:], centre or (0.5, 0.5), spacing)
    fine, labels = fine[cut], None
    beside = None if is_film else label_file(path)
    if beside is not None:
        labels = labels_on_grid(beside, stack, own_pixels, label_map)[cut]
    positions = stack.positions
    gaps = positions[hidden + 1] - positions[hidden - 1]
    groups = {"gap": tuple(f"{gap:.3g} mm" for gap in gaps)}
    if not is_film:
        groups["third"] = _thirds(hidden, stack.n_slices, labels)
    return Case(
        subject=subject_of(path),
        name=plain_stem(path.name),
        images=fine[:, kept],
        positions=positions[kept],
        targets=positions[hidden],
        truth=fine[:, hidden],
        spacing=spacing,
        labels=None if labels is None else labels[None, kept],
        truth_labels=None if labels is None else labels[None, hidden],
        groups=groups,
    )


def compared(
    images: NDArray[np.float32], spacing: tuple[float, float], own_pixels: bool
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Images ``(..., height, width)`` as they are compared, not below 0, and their spacing."""
    if own_pixels:
        return np.maximum(images, 0), spacing
    grid = NetworkGrid.of(images.shape[-2:], spacing)
    fine = resample(torch.from_numpy(images), grid.native, grid.network)
    return np.asarray(fine.clamp(0).numpy()), (PIXEL_SPACING, PIXEL_SPACING)


def region(
    shape: tuple[int, ...], centre: tuple[float, float], spacing: tuple[float, float]
) -> tuple[EllipsisType | slice, ...]:
    """Index of the compared square of ``(..., height, width)``.

    Parameters
    ----------
    shape
        ``(height, width)`` in pixels.
    centre
        Of the square, as a share of height and width; it is moved to stay inside.
    spacing
        Of the pixels in mm, by rows and by columns.
    """
    cut: list[EllipsisType | slice] = [...]
    for size, share, step in zip(shape, centre, spacing, strict=True):
        side = min(size, round(REGION / step))
        first = int(np.clip(round(share * size - side / 2), 0, size - side))
        cut.append(slice(first, first + side))
    return tuple(cut)


def _thirds(
    hidden: NDArray[np.int64], count: int, labels: NDArray[np.uint8] | None
) -> tuple[str, ...]:
    """Base, mid or apex of every hidden slice; the base is the end with the larger heart.

    Without labels nothing says which end is which: they are called end, mid, end.
    """
    names = ["end", "mid", "end"]
    if labels is not None:
        area = (labels > 0).sum((1, 2))
        names = ["base", "mid", "apex"]
        if area[: count // 2].sum() < area[-(count // 2) :].sum():
            names.reverse()
    return tuple(names[min(2, int(3 * (h + 0.5) / count))] for h in hidden)


def _label_centre(path: Path) -> tuple[float, float] | None:
    """Centre of the labels as a share of height and width, if a label file is there."""
    beside = label_file(path, ("label", "gt", "lv"))
    if beside is None:
        return None
    labelled = (read_stack(beside).data != 0).any(axis=(0, 1))
    if not labelled.any():
        return None
    spans = (np.flatnonzero(labelled.any(axis=a)) for a in (1, 0))
    top, left = ((s[0] + s[-1] + 1) / 2 / n for s, n in zip(spans, labelled.shape, strict=True))
    return float(top), float(left)
