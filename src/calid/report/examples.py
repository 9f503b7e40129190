"""A hidden slice beside what each method made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from calid.report.png import DOTS_PER_INCH

__all__ = ["example_sheets", "sheet"]

SIDE, SPACE, TITLE = 128, 2, 16
"""Pixels: of an image at most, unless it has more itself; between images; above each."""

COLUMNS = 8

ERROR = 0.6
"""Window units at the ends of the colours."""


def example_sheets(
    truth: NDArray[np.float32], answers: Mapping[str, NDArray[np.float32]]
) -> tuple[Figure, Figure]:
    """The truth and every method's answer, and the errors in the same places.

    Two sheets, because one is grey and the other is not: together they would need a palette in
    which both lose shades.

    Parameters
    ----------
    truth
        Image in window units.
    answers
        Method to its image, of the same shape.
    """
    errors = {name: image - truth for name, image in answers.items()}
    return (
        sheet({"truth": truth, **answers}, cmap="gray", vmin=0, vmax=1),
        sheet({"": None, **errors}, cmap="RdBu_r", vmin=-ERROR, vmax=ERROR),
    )


def sheet(images: Mapping[str, NDArray[Any] | None], **look: Any) -> Figure:
    """Images of one shape in rows, each below its name, pixel by pixel.

    Every pixel of an image is a whole number of pixels of the figure, so that nothing is
    smoothed on the way.

    Parameters
    ----------
    images
        Name to image; none leaves its place empty.
    look
        As matplotlib's ``imshow``.
    """
    height, width = next(image.shape[:2] for image in images.values() if image is not None)
    factor = max(1, SIDE // max(height, width))
    height, width = factor * height, factor * width
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    wide, tall = columns * (width + SPACE) - SPACE, rows * (height + TITLE)
    figure = Figure(figsize=(wide / DOTS_PER_INCH, tall / DOTS_PER_INCH), facecolor="black")
    for number, (name, image) in enumerate(images.items()):
        row, column = divmod(number, columns)
        left, bottom = column * (width + SPACE), tall - (row + 1) * (height + TITLE)
        axis = figure.add_axes((left / wide, bottom / tall, width / wide, height / tall))
        axis.axis("off")
        if image is not None:
            axis.imshow(image, aspect="auto", interpolation="nearest", **look)
            axis.set_title(name, color="white", fontsize=7, pad=3)
    return figure
