"""Films: every second slice is hidden in all frames of a cine stack, and time is judged too.

Methods answer frame by frame, or however they like: what is compared is the film. Intensities
are scaled by the percentiles of the kept slices of all frames and clipped to [0, 1].
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calid.data.bank import subject_of
from calid.data.intensity import IntensityWindow
from calid.data.sparsify import hide_alternate
from calid.errors import DataError
from calid.evaluation.case import Case
from calid.evaluation.hidden_slices import compared, image_figures, recoded, region
from calid.evaluation.protocol import Figures, Protocol
from calid.evaluation.temporal import flicker, temporal_error
from calid.inference.model import FEWEST_FRAMES, Model
from calid.io import Reader, read
from calid.io.find import plain_stem

__all__ = ["film", "load_film"]

FEWEST_SLICES = 3


def film(autoencoder: Model | None, reader: Reader = read, own_pixels: bool = False) -> Protocol:
    """The protocol.

    Parameters
    ----------
    autoencoder
        Model whose autoencoder gives the ceiling row; none leaves it out.
    reader
        Reads the stacks.
    own_pixels
        As `calid.evaluation.hidden_slices.hidden_slices`.
    """
    return Protocol(
        name="film",
        load=partial(load_film, reader=reader, own_pixels=own_pixels),
        score=_score,
        columns=("psnr", "ssim", "hfen", "sharpness", "temporal_error", "flicker"),
        headline=("psnr", "temporal_error"),
        lower_is_better=frozenset({"hfen", "temporal_error"}),
        ceilings={"autoencoder": recoded(autoencoder)} if autoencoder else {},
    )


def load_film(path: Path, reader: Reader = read, own_pixels: bool = False) -> Case:
    """Read a cine stack, hide slices in all frames, and cut the region about its centre.

    Raises
    ------
    DataError
        If the stack has fewer than three slices (nothing can be hidden) or fewer than four
        frames (a heartbeat cannot be told from noise).
    """
    stack = reader(path)
    if stack.n_slices < FEWEST_SLICES:
        raise DataError(path, "Fewer than three slices: none can be hidden.", "Leave it out.")
    if stack.n_frames < FEWEST_FRAMES:
        raise DataError(
            path, f"{stack.n_frames} frames are no film.", "Give a cine stack of 4 frames or more."
        )
    kept, hidden = hide_alternate(stack.n_slices)
    window = IntensityWindow.of(stack.data[:, kept], stack.intensity)
    images = window.normalise(stack.data)
    fine, spacing = compared(images, stack.pixel_spacing, own_pixels)
    fine = fine[(slice(None), *region(fine.shape[-2:], (0.5, 0.5), spacing))]
    positions = stack.positions
    gaps = positions[hidden + 1] - positions[hidden - 1]
    return Case(
        subject=subject_of(path),
        name=plain_stem(path.name),
        images=fine[:, kept],
        positions=positions[kept],
        targets=positions[hidden],
        truth=fine[:, hidden],
        spacing=spacing,
        groups={"gap": tuple(f"{gap:.3g} mm" for gap in gaps)},
    )


def _score(case: Case, answer: NDArray[np.float32]) -> Figures:
    """One figure a hidden slice: those of images as means over the frames."""
    frames, targets, height, width = answer.shape
    shown, wanted = (np.clip(x, 0, 1) for x in (answer, case.truth))
    flat = (x.reshape(-1, height, width) for x in (shown, wanted))
    figures = {
        name: values.reshape(frames, targets).mean(0)
        for name, values in image_figures(*flat).items()
    }
    return figures | {
        "temporal_error": temporal_error(shown, wanted),
        "flicker": flicker(shown, wanted),
    }
