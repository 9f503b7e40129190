"""Hidden slices beside what each method made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["example_rows"]

SIDE = 1.3
"""Of an image, in inches: at a hundred dots an inch about one for each of its pixels."""


def example_rows(
    truths: Sequence[NDArray[np.float32]], answers: Mapping[str, Sequence[NDArray[np.float32]]]
) -> Figure:
    """One row per hidden slice: the truth, then every method with its error below.

    Parameters
    ----------
    truths
        Images in window units.
    answers
        Method to its images, in the order of ``truths``.
    """
    columns = 1 + len(answers)
    tall = 2 * SIDE * len(truths)
    figure = Figure(figsize=(SIDE * columns, tall), facecolor="black")
    axes = figure.subplots(2 * len(truths), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, truth in enumerate(truths):
        axes[2 * i][0].imshow(truth, cmap="gray", vmin=0, vmax=1)
        for j, images in enumerate(answers.values(), start=1):
            axes[2 * i][j].imshow(images[i], cmap="gray", vmin=0, vmax=1)
            error = images[i] - truth
            axes[2 * i + 1][j].imshow(error, cmap="RdBu_r", vmin=-0.6, vmax=0.6)
    for axis, name in zip(axes[0], ("truth", *answers), strict=True):
        axis.set_title(name, color="white", fontsize=7)
    figure.subplots_adjust(left=0, right=1, top=1 - 0.22 / tall, bottom=0, wspace=0.02, hspace=0.02)
    return figure
