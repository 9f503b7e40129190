"""The beating heart as acquired, linear and generated, side by side.

An animation lasts one heartbeat and starts again; a still strip shows three moments of it. Both
are centred on what moves, since that is the heart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from calid import IntensityWindow, SliceStack, Volume, linear, nearest
from calid.errors import OutputError
from calid.io.atomic import atomic
from calid.report.figures import comparison, midway, save_figure

__all__ = [
    "around",
    "centre_of_motion",
    "check_animation",
    "film_strip",
    "picture_of",
    "save_animation",
]

COLUMNS = ("as acquired", "linear", "CaLID")
ROWS = ("short axis,\nbetween two slices", "long-axis cut")
VIEW = 160.0
"""Edge in mm of what is shown, about a heart and its surroundings."""
PANEL = 240
"""Wanted width in pixels of one image; it is enlarged by whole numbers only."""
GREYS = 64
"""More look the same on a screen and make larger files."""
SHORTEST = 0.02
"""Seconds: browsers play shorter frames too slowly. Frames that come sooner are left out."""
LEFT, TOP, BOTTOM, SPACE, DPI = 44, 26, 26, 4, 100
"""Margins in pixels, and pixels per inch."""
BAR = 50
"""Length in mm of the bar that gives the scale."""


def check_animation(path: Path, stack: SliceStack) -> None:
    """Raise an `OutputError` if an animation (GIF) is asked for and there is only one frame."""
    if path.suffix.lower() == ".gif" and stack.n_frames == 1:
        raise OutputError(
            path,
            "An animation needs a film, and the input has one frame.",
            "Use .png, .pdf or .svg, or give a film (4D).",
        )


def picture_of(stack: SliceStack, volume: Volume, suffix: str) -> Callable[[Path], None]:
    """A function that writes the picture: an animation (.gif), a strip of a film, a comparison."""
    if suffix.lower() == ".gif":
        return partial(save_animation, stack, volume)
    if stack.n_frames == 1:
        return partial(save_figure, comparison(stack, volume))
    # Twice the pixels, so that every one of the image stays a whole number of them.
    return partial(save_figure, film_strip(stack, volume), dots_per_inch=2 * DPI)


def save_animation(stack: SliceStack, volume: Volume, path: Path) -> None:
    """Write a GIF that loops one heartbeat at its true speed; complete or not at all.

    The file holds nothing but images and times. ``stack`` is a film, as acquired, from which
    ``volume`` was reconstructed.
    """
    cuts = _Cuts.of(stack, volume)
    shown, milliseconds = _timing(stack.frame_times)
    figure, axes, clock = _layout(cuts, ROWS)
    canvas: Any = FigureCanvasAgg(figure)  # its methods declare no types
    pictures = []
    for frame in shown:
        for axis, image in zip(axes, cuts.frame(frame), strict=True):
            axis.images[0].set_data(image)
        clock.set_text(_moment(stack, frame))
        canvas.draw()
        grey = np.asarray(canvas.buffer_rgba())[..., 0].astype(np.uint16)
        levels = (grey * (GREYS - 1) + 127) // 255
        picture = Image.fromarray(levels.astype(np.uint8))
        picture.putpalette([g * 255 // (GREYS - 1) for g in range(GREYS) for _ in "rgb"])
        pictures.append(picture)
    with atomic(path) as file:
        pictures[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=milliseconds,
            loop=0,
            optimize=False,
        )


def film_strip(stack: SliceStack, volume: Volume) -> Figure:
    """Three moments, evenly spread over the film, of the short-axis slice and the cut.

    One column per method; above short-axis slices, below long-axis cuts. ``stack`` and
    ``volume`` are as in `save_animation`.
    """
    cuts = _Cuts.of(stack, volume)
    moments = sorted({stack.n_frames * third // 3 for third in range(3)})
    rows = [f"{row}\n{_moment(stack, frame)}" for row in ROWS for frame in moments]
    figure, axes, _ = _layout(cuts, rows)
    images = [cuts.frame(frame) for frame in moments]
    short = [image for frame in images for image in frame[: len(COLUMNS)]]
    long = [image for frame in images for image in frame[len(COLUMNS) :]]
    for axis, image in zip(axes, short + long, strict=True):
        axis.images[0].set_data(image)
    return figure


@dataclass(frozen=True, eq=False)
class _Cuts:
    """A short-axis slice and a long-axis cut through what moves.

    ``rows`` and ``columns`` are the part of the image that is shown; the cut runs along the row
    ``across``.
    """

    stack: SliceStack
    volume: Volume
    window: IntensityWindow
    rows: slice
    columns: slice
    across: int

    @classmethod
    def of(cls, stack: SliceStack, volume: Volume) -> _Cuts:
        centre = centre_of_motion(stack.data)
        rows, columns = (
            around(place, round(VIEW / step), size)
            for place, step, size in zip(centre, stack.pixel_spacing, stack.shape[2:], strict=True)
        )
        window = IntensityWindow.of(stack.data, stack.intensity)
        return cls(stack, volume, window, rows, columns, round(centre[0]))

    def frame(self, number: int) -> list[NDArray[np.float32]]:
        """Images of one frame: short axis by column, then long axis by column."""
        stack, volume, middle = self.stack, self.volume, midway(self.volume)

        def answers(rows: slice, wanted: slice) -> list[NDArray[np.float32]]:
            seen = self.window.normalise(stack.data[number, :, rows, self.columns])
            asked = seen, stack.positions, volume.positions[wanted], stack.pixel_spacing
            dense = self.window.normalise(volume.data[number, wanted, rows, self.columns])
            return [nearest(*asked), linear(*asked), dense]

        short = answers(self.rows, slice(middle, middle + 1))
        long = answers(slice(self.across, self.across + 1), slice(None))
        return [image[0] for image in short] + [image[:, 0] for image in long]

    @property
    def size(self) -> tuple[float, float, float]:
        """Height and width of the short-axis slice and length of the long axis, in mm."""
        through, row_step, column_step = self.volume.spacing
        height, width = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        return height * row_step, width * column_step, len(self.volume.positions) * through


def centre_of_motion(data: NDArray[np.generic]) -> tuple[float, float]:
    """Row and column in the centre of what changes; the middle if nothing changes.

    ``data`` has the shape ``(frames, slices, height, width)``.
    """
    change: NDArray[np.float64] = np.zeros(data.shape[2:])
    for number in range(data.shape[1]):  # one at a time, to spare memory
        change += data[:, number].astype(np.float64).std(axis=0)
    # Noise is everywhere and would draw the centre to the middle of the image.
    change[change < np.percentile(change, 95)] = 0
    if not change.any():
        change[:] = 1
    rows, columns = (np.arange(size) for size in change.shape)
    total = change.sum()
    return float(change.sum(axis=1) @ rows / total), float(change.sum(axis=0) @ columns / total)


def around(centre: float, count: int, size: int) -> slice:
    """``count`` pixels about a place; fewer if the image has fewer."""
    count = max(1, min(count, size))
    first = min(max(round(centre - (count - 1) / 2), 0), size - count)
    return slice(first, first + count)


def _timing(times: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Frames to show, and for how many milliseconds each.

    The last one lasts as long as frames usually do. GIF counts hundredths of a second. The times
    of the changes are rounded, not the durations, so that a heartbeat keeps its length.
    """
    end = times[-1] + float(np.median(np.diff(times)))
    shown = [0]
    for frame in range(1, len(times)):
        if min(times[frame], end) - times[shown[-1]] >= SHORTEST - 1e-9:
            shown.append(frame)
    changes = np.rint(100 * (np.append(times[shown], end) - times[0]))
    return shown, [int(10 * max(1, min(step, 65535))) for step in np.diff(changes)]


def _moment(stack: SliceStack, frame: int) -> str:
    return f"{1000 * stack.frame_times[frame]:.0f} ms"


def _layout(cuts: _Cuts, rows: Sequence[str]) -> tuple[Figure, list[Axes], Text]:
    """Black panels in true proportions, pixels of the image a whole number of the screen's."""
    tall, wide, deep = cuts.size
    count = cuts.columns.stop - cuts.columns.start
    width = count * max(1, round(PANEL / count))
    heights = [max(1, round(mm * width / wide)) for mm in (tall, deep)]
    per_row = [heights[0] if row.startswith(ROWS[0]) else heights[1] for row in rows]
    full = LEFT + len(COLUMNS) * (width + SPACE)
    high = TOP + sum(per_row) + SPACE * len(rows) + BOTTOM
    figure = Figure(figsize=(full / DPI, high / DPI), dpi=DPI, facecolor="black")
    axes, under = [], high - TOP
    for name, height in zip(rows, per_row, strict=True):
        under -= height
        for number, title in enumerate(COLUMNS):
            left = LEFT + number * (width + SPACE)
            box = (left / full, under / high, width / full, height / high)
            axis = figure.add_axes(box, facecolor="black")
            axis.imshow(
                np.zeros((1, 1)), "gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto",
                extent=(0, 1, 1, 0),
            )  # fmt: skip
            axis.set_axis_off()
            axes.append(axis)
            if len(axes) <= len(COLUMNS):
                axis.set_title(title, color="white", fontsize=10, pad=5)
        middle = (under + height / 2) / high
        side = partial(figure.text, color="white", rotation=90, ha="center", va="center")
        side(LEFT / 2 / full, middle, name, fontsize=7)
        under -= SPACE
    foot = BOTTOM / 2 / high
    ends = [LEFT / full, (LEFT + BAR * width / wide) / full]
    figure.add_artist(Line2D(ends, [foot, foot], color="white", linewidth=2))
    beside = partial(figure.text, color="white", fontsize=8, va="center_baseline")
    beside(ends[1] + 6 / full, foot, f"{BAR} mm")
    return figure, axes, beside(1 - 8 / full, foot, "", ha="right")
