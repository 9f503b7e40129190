"""One picture of a reconstruction: as acquired, linear, and generated, in three planes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from calid.baselines.linear import linear
from calid.baselines.nearest import nearest
from calid.baselines.signature import Method
from calid.data.intensity import IntensityWindow
from calid.inference.densify import DensePlan, each_frame, fill
from calid.stack import SliceStack, Volume

__all__ = ["Cut", "comparison", "cuts", "midway"]


@dataclass(frozen=True)
class Cut:
    """A cut through ``(slices, height, width)``.

    Parameters
    ----------
    title
        What it is, in a word or two.
    index
        Of the array.
    tall, wide
        Its size in mm.
    """

    title: str
    index: tuple[int | slice, ...]
    tall: float
    wide: float


def comparison(stack: SliceStack, volume: Volume, truth: SliceStack | None = None) -> Figure:
    """Mid short-axis slice and two long-axis cuts.

    Parameters
    ----------
    stack
        As acquired; its first frame is shown, as slabs of the slice spacing, then linear.
    volume
        Reconstructed from ``stack``.
    truth
        The truth at every position of the volume, where there is one.

    Returns
    -------
    Figure
        One column per method, one row per plane, all on one grey scale and in true
        proportions. The short-axis slice lies midway between two acquired ones.
    """
    columns = {
        "as acquired": _filled(stack, volume, nearest),
        "linear": _filled(stack, volume, linear),
        "CaLID": volume.data[0],
    }
    if truth is not None:
        columns["truth"] = truth.data[0]
    window = IntensityWindow.of(stack.data, stack.intensity)
    planes = cuts(volume)
    wide, tall = max(p.wide for p in planes), sum(p.tall for p in planes)
    panel = 3.4
    figure = Figure(
        figsize=(panel * len(columns) + 0.4, panel * tall / wide + 0.3), facecolor="black"
    )
    axes = figure.subplots(
        len(planes),
        len(columns),
        gridspec_kw={
            "height_ratios": [p.tall for p in planes],
            "wspace": 0.02,
            "hspace": 0.03,
            "left": 0.4 / (panel * len(columns) + 0.4),
            "right": 1,
            "bottom": 0,
            "top": 1 - 0.3 / (panel * tall / wide + 0.3),
        },
        squeeze=False,
    )
    for i, plane in enumerate(planes):
        for j, (name, data) in enumerate(columns.items()):
            _show(axes[i][j], window.normalise(data[plane.index]), plane, wide)
            if i == 0:
                axes[i][j].set_title(name, color="white", fontsize=11, pad=4)
        axes[i][0].set_ylabel(plane.title, color="white", fontsize=8)
    return figure


def cuts(volume: Volume) -> list[Cut]:
    """Mid short-axis slice, between two acquired ones, and two long-axis cuts.

    These go through the heart, if it is known where that is, else through the middle.
    """
    row, column = volume.centre
    through, row_step, column_step = volume.spacing
    slices, height, width = volume.data.shape[1:]
    return [
        Cut(
            "short axis,\nbetween two slices",
            (midway(volume),),
            height * row_step,
            width * column_step,
        ),
        Cut("long-axis cut", (slice(None), row), slices * through, width * column_step),
        Cut(
            "long-axis cut",
            (slice(None), slice(None), column),
            slices * through,
            height * row_step,
        ),
    ]


def midway(volume: Volume) -> int:
    """The slice midway between the two acquired ones in the middle."""
    real = np.flatnonzero(volume.acquired)
    return int(sum(real[(len(real) - 1) // 2 :][:2])) // 2


def _filled(stack: SliceStack, volume: Volume, method: Method) -> NDArray[np.generic]:
    """The first frame of a volume with another method's slices between the acquired ones."""
    still = replace(stack, data=stack.data[:1], frame_times=stack.frame_times[:1])
    same = DensePlan(volume.positions, volume.acquired, volume.affine)
    filled = fill(still, each_frame(method), same)
    return np.asarray(filled.data[0])


def _show(axis: Axes, image: NDArray[np.float32], plane: Cut, wide: float) -> None:
    left = (wide - plane.wide) / 2
    axis.imshow(
        image,
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(left, left + plane.wide, plane.tall, 0),
        interpolation="nearest",
        aspect="equal",
    )
    axis.set_xlim(0, wide)
    axis.set_facecolor("black")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
