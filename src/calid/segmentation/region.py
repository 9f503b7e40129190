"""Where in the slices the heart is."""

from __future__ import annotations

import numpy as np
import torch

from calid.data.intensity import CEILING, IntensityWindow
from calid.geometry.grid import PIXEL_SPACING, NetworkGrid
from calid.geometry.pixels import PixelGrid
from calid.geometry.region import Region
from calid.segmentation.segment import Segmenter, keep_largest, load_segmenter
from calid.stack import SliceStack

__all__ = ["heart_region"]

FRAMES = 3
"""Of a film that are looked at, evenly over the beat: the heart is largest in one of them."""

MARGIN = 8.0
"""Millimetres around the heart in which the answer is the networks' alone."""

LEAST = 600.0
"""Square millimetres that the labels must cover in a slice to be a heart."""

WORTH = 0.8
"""Share of the field above which a region saves too little."""


def heart_region(stack: SliceStack, segmenter: Segmenter | None = None) -> Region | None:
    """A box about everything that is labelled in any slice.

    Parameters
    ----------
    segmenter
        The released network if nothing is given.

    Returns
    -------
    Region or None
        None if no heart is found, or if the box is nearly all there is.
    """
    grid = NetworkGrid.of(stack.shape[2:], stack.pixel_spacing)
    window = IntensityWindow.of(stack.data, stack.intensity)
    beat = np.unique(np.arange(FRAMES) * stack.n_frames // FRAMES)
    segmenter = segmenter or load_segmenter()
    hearts = []
    for images in window.normalise(stack.data[beat]):
        shown = grid.enter(torch.from_numpy(images)).clamp(0, CEILING)[:, None]
        labels = [segmenter.classes(part).cpu() for part in shown.split(8)]
        hearts.append(keep_largest(torch.cat(labels).numpy().astype(np.uint8)) > 0)
    found = np.any(hearts, axis=(0, 1))
    if found.sum() * PIXEL_SPACING**2 < LEAST:
        return None
    pixels = PixelGrid.of(stack.shape[2:], stack.pixel_spacing)
    marked = grid.leave(torch.from_numpy(found.astype(np.float32))[None])[0].numpy() > 0.5
    rows, columns = (
        ((np.arange(size) + 0.5) * given / size).astype(int)
        for given, size in zip(pixels.shape, pixels.size, strict=True)
    )
    left, right, top, bottom = pixels.padding
    marked = np.pad(marked[np.ix_(rows, columns)], ((top, bottom), (left, right)))
    region = Region.around(marked, round(MARGIN / min(pixels.spacing)))
    return region if region is not None and region.share < WORTH else None
