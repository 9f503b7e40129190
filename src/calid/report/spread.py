"""Where the samples of a reconstruction differ."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from calid.errors import UsageError
from calid.report.figure import cuts
from calid.stack import Volume

__all__ = ["spread_figure"]


def spread_figure(volume: Volume) -> Figure:
    """The standard deviation over samples in the cuts of `calid.report.figure.comparison`.

    One row, one colour scale in image units; it ends at the 99th percentile of what is shown.

    Raises
    ------
    UsageError
        If the volume has no uncertainty.
    """
    if volume.uncertainty is None:
        raise UsageError("uncertainty", "This volume has none.", "Ask for it when reconstructing.")
    planes = cuts(volume)
    images = [volume.uncertainty[0][plane.index] for plane in planes]
    top = float(np.percentile(np.concatenate([i.ravel() for i in images]), 99)) or 1.0
    wide = sum(plane.wide for plane in planes)
    tall = max(plane.tall for plane in planes)
    figure = Figure(figsize=(10.6, 9.6 * tall / wide + 0.4), facecolor="black")
    grid = figure.add_gridspec(
        1,
        4,
        width_ratios=[*(plane.wide for plane in planes), 0.02 * wide],
        wspace=0.03,
        left=0.005,
        right=0.95,
        bottom=0.02,
        top=1 - 0.35 / (9.6 * tall / wide + 0.4),
    )
    for i, (plane, image) in enumerate(zip(planes, images, strict=True)):
        axis = figure.add_subplot(grid[0, i])
        shown = axis.imshow(
            image,
            cmap="inferno",
            vmin=0,
            vmax=top,
            extent=(0, plane.wide, plane.tall, 0),
            interpolation="nearest",
        )
        axis.set_title(plane.title.replace("\n", " "), color="white", fontsize=9, pad=4)
        axis.axis("off")
    bar = figure.colorbar(shown, cax=figure.add_subplot(grid[0, 3]))
    bar.ax.tick_params(colors="white", labelsize=8)
    return figure
