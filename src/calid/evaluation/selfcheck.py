"""A test of the model on the slices of the stack that it reconstructs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calid.baselines.rules import Method, linear
from calid.data.bank import hide_alternate
from calid.data.intensity import IntensityWindow
from calid.errors import DataError
from calid.evaluation.hidden_slices import compared, image_figures, region
from calid.evaluation.protocol import Figures
from calid.geometry.grid import PIXEL_SPACING
from calid.stack import SliceStack

__all__ = ["OURS", "SelfCheck", "self_check"]

OURS = "CaLID"

SMALLEST = 16
"""Pixels of 1.5 mm that a side must have: figures look at windows of up to 15."""


@dataclass(frozen=True, eq=False)
class SelfCheck:
    """Hidden slices, and the answers of linear interpolation and the model for them.

    Parameters
    ----------
    slices
        Shape ``(hidden,)``; indices in the stack.
    gaps
        Shape ``(hidden,)``; mm between the two slices left on either side of each.
    truth
        Shape ``(hidden, height, width)``; window units.
    answers
        ``linear`` and `OURS`: arrays like ``truth``.
    figures
        PSNR, SSIM and more of both answers, one figure per hidden slice.
    pixel
        In-plane spacing of ``truth`` in mm.
    """

    slices: NDArray[np.int64]
    gaps: NDArray[np.float64]
    truth: NDArray[np.float32]
    answers: Mapping[str, NDArray[np.float32]]
    figures: Mapping[str, Figures]
    pixel: float = PIXEL_SPACING

    def mean(self, method: str, metric: str) -> float:
        """Mean of a figure over the hidden slices."""
        return float(np.mean(self.figures[method][metric]))

    @property
    def gain(self) -> float:
        """PSNR of the model over that of linear, in dB."""
        return self.mean(OURS, "psnr") - self.mean("linear", "psnr")


def self_check(
    stack: SliceStack, method: Method, centre: tuple[float, float] = (0.5, 0.5)
) -> SelfCheck:
    """Hide every second slice of the first frame, generate it again, and compare.

    As in the hidden-slices protocol: the window is that of the slices that are left, and the
    compared square is 192 mm wide, or as wide as the image allows.

    Parameters
    ----------
    method
        The model.
    centre
        Of the square, as a share of height and width; it is moved to stay inside.

    Raises
    ------
    DataError
        If the stack has fewer than three slices, or its images are too small or too plain for
        figures.
    """

    def refused(rule: str) -> DataError:
        return DataError("self-check", rule, "Leave it out.")

    if stack.n_slices < 3:
        raise refused("It hides every second slice and needs three or more.")
    kept, hidden = hide_alternate(stack.n_slices)
    window = IntensityWindow.of(stack.data[0, kept], stack.intensity)
    images = window.normalise(stack.data[0])
    fine, spacing = compared(images, stack.pixel_spacing, own_pixels=False)
    fine = fine[region(fine.shape[-2:], centre, spacing)]
    if min(fine.shape[-2:]) < SMALLEST:
        raise refused(f"It needs images of {SMALLEST * PIXEL_SPACING:g} mm or more a side.")
    truth, positions = fine[hidden], stack.positions
    asked = fine[kept], positions[kept], positions[hidden], spacing
    answers = {"linear": linear(*asked), OURS: method(*asked)}
    figures = {name: image_figures(answer, truth) for name, answer in answers.items()}
    if not all(np.isfinite(f[name]).all() for f in figures.values() for name in ("psnr", "ssim")):
        raise refused(
            "A hidden slice is without contrast or met exactly: figures have no value there."
        )
    return SelfCheck(hidden, positions[hidden + 1] - positions[hidden - 1], truth, answers, figures)
