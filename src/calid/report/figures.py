"""Figures, and their files: grey or palette PNG that is light enough for a repository, PDF, SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from calid import IntensityWindow, SliceStack, Volume, densify_like, linear, nearest
from calid.errors import UsageError
from calid.io.atomic import atomic

if TYPE_CHECKING:
    from calid.evaluation.protocol import Row

__all__ = [
    "LIGHT",
    "Cut",
    "calibration_figure",
    "comparison",
    "cuts",
    "encode",
    "example_sheets",
    "m_mode_sheet",
    "midway",
    "paired_differences",
    "png",
    "save_figure",
    "sheet",
    "spread_figure",
]

DOTS_PER_INCH = 110

LIGHT = 200_000
"""Most bytes of a picture that is kept with results."""

SHADES = (256, 192, 128, 96, 64, 48, 32)
"""Numbers of greys or colours that are tried. The eye sees no steps at the first ones."""

SIDE, SPACE, TITLE, COLUMNS = 128, 2, 16, 8
"""For a sheet: side in pixels up to which images are enlarged; pixels between images, and above
each; images per row."""

ERROR = 0.6
"""Window units at the ends of the colours of errors."""

BASE = "linear"
"""The method that others are compared with."""


@dataclass(frozen=True)
class Cut:
    """A cut through ``(slices, height, width)``: name, array index, and size in mm."""

    title: str
    index: tuple[int | slice, ...]
    tall: float
    wide: float


def save_figure(
    figure: Figure, path: Path, dots_per_inch: int = DOTS_PER_INCH, limit: int | None = None
) -> None:
    """Write a figure (PNG, PDF or SVG by suffix), complete or not at all; of PNG as `encode`."""
    kind = path.suffix.removeprefix(".").lower()
    with atomic(path) as file:
        if kind == "png":
            file.write(png(figure, dots_per_inch, limit))
        else:
            figure.savefig(file, format=kind, dpi=dots_per_inch)


def png(figure: Figure, dots_per_inch: int = DOTS_PER_INCH, limit: int | None = None) -> bytes:
    """A figure as PNG; see `encode`."""
    figure.set_dpi(dots_per_inch)
    canvas: Any = FigureCanvasAgg(figure)  # its methods declare no types
    canvas.draw()
    return encode(np.asarray(canvas.buffer_rgba())[..., :3], limit)


def encode(pixels: NDArray[np.uint8], limit: int | None = None) -> bytes:
    """Pixels ``(height, width, 3)`` as PNG, grey if they all are, else with a palette.

    Nothing is dithered, since that would add grain. Above ``limit`` bytes, greys or colours become
    fewer, 32 at least.
    """
    grey = bool((pixels == pixels[..., :1]).all())
    content = b""
    for shades in SHADES:
        if grey:
            steps = shades - 1
            levels = np.rint(np.rint(np.arange(256) * steps / 255) * 255 / steps)
            image = Image.fromarray(levels.astype(np.uint8)[pixels[..., 0]])
        else:
            full = Image.fromarray(np.ascontiguousarray(pixels))
            image = full.quantize(shades, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        buffer = BytesIO()
        image.save(buffer, "PNG", optimize=True)
        content = buffer.getvalue()
        if limit is None or len(content) <= limit:
            break
    return content


def comparison(stack: SliceStack, volume: Volume, truth: SliceStack | None = None) -> Figure:
    """Mid short-axis slice and two long-axis cuts, as acquired, linear and generated.

    The first two columns show ``stack``, from which ``volume`` was reconstructed, as slabs of the
    slice spacing and interpolated linearly; ``volume`` follows, and then ``truth``, if it is known
    at every position of the volume. Only first frames are shown, on one grey scale and in true
    proportions. The short-axis slice lies midway between two acquired ones.
    """
    still = replace(stack, data=stack.data[:1], frame_times=stack.frame_times[:1])
    columns = {
        "as acquired": densify_like(volume, still, nearest).data[0],
        "linear": densify_like(volume, still, linear).data[0],
        "CaLID": volume.data[0],
    }
    if truth is not None:
        columns["truth"] = truth.data[0]
    window = IntensityWindow.of(stack.data, stack.intensity)
    planes = cuts(volume)
    full = max(plane.wide for plane in planes)
    panel, side, top = 3.4, 0.4, 0.3  # inches
    wide = panel * len(columns) + side
    tall = panel * sum(plane.tall for plane in planes) / full + top
    figure = Figure(figsize=(wide, tall), facecolor="black")
    axes = figure.subplots(
        len(planes),
        len(columns),
        gridspec_kw={
            "height_ratios": [plane.tall for plane in planes],
            "wspace": 0.02,
            "hspace": 0.03,
            "left": side / wide,
            "right": 1,
            "bottom": 0,
            "top": 1 - top / tall,
        },
        squeeze=False,
    )
    for row, plane in zip(axes, planes, strict=True):
        left = (full - plane.wide) / 2
        for axis, data in zip(row, columns.values(), strict=True):
            axis.imshow(
                window.normalise(data[plane.index]),
                cmap="gray",
                vmin=0,
                vmax=1,
                extent=(left, left + plane.wide, plane.tall, 0),
                interpolation="nearest",
                aspect="equal",
            )
            axis.set(xlim=(0, full), facecolor="black", xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(plane.title, color="white", fontsize=8)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, color="white", fontsize=11, pad=4)
    return figure


def spread_figure(volume: Volume) -> Figure:
    """The standard deviation over samples in the cuts of `comparison`.

    One row, one colour scale in image units; it ends at the 99th percentile of what is shown. A
    `UsageError` if the volume has no uncertainty.
    """
    if volume.uncertainty is None:
        raise UsageError("uncertainty", "This volume has none.", "Ask for it when reconstructing.")
    planes = cuts(volume)
    images = [volume.uncertainty[0][plane.index] for plane in planes]
    top = float(np.percentile(np.concatenate([i.ravel() for i in images]), 99)) or 1.0
    wide = sum(plane.wide for plane in planes)
    height = 9.6 * max(plane.tall for plane in planes) / wide + 0.4
    figure = Figure(figsize=(10.6, height), facecolor="black")
    axes = figure.subplots(
        1,
        4,
        gridspec_kw={
            "width_ratios": [*(plane.wide for plane in planes), 0.02 * wide],
            "wspace": 0.03,
            "left": 0.005,
            "right": 0.95,
            "bottom": 0.02,
            "top": 1 - 0.35 / height,
        },
    )
    for axis, plane, image in zip(axes[:3], planes, images, strict=True):
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
    bar = figure.colorbar(shown, cax=axes[3])
    bar.ax.tick_params(colors="white", labelsize=8)
    return figure


def cuts(volume: Volume) -> list[Cut]:
    """Mid short-axis slice, between two acquired ones, and two long-axis cuts.

    The cuts go through the heart if its place is known, else through the middle.
    """
    row, column = volume.centre
    slices, height, width = np.multiply(volume.data.shape[1:], volume.spacing).tolist()
    every = slice(None)
    return [
        Cut("short axis,\nbetween two slices", (midway(volume),), height, width),
        Cut("long-axis cut", (every, row), slices, width),
        Cut("long-axis cut", (every, every, column), slices, height),
    ]


def midway(volume: Volume) -> int:
    """The slice midway between the two acquired ones in the middle."""
    real = np.flatnonzero(volume.acquired)
    return int(sum(real[(len(real) - 1) // 2 :][:2])) // 2


def example_sheets(images: Mapping[str, NDArray[np.float32]]) -> tuple[Figure, Figure]:
    """The truth and every method's answer, and the errors in the same places.

    Two sheets, because one is grey and the other is not: on one they would share a palette, and
    both would lose shades. ``images`` has the truth, then each method's, in window units, all of
    one shape.
    """
    errors = {n: image - images["truth"] for n, image in images.items() if n != "truth"}
    return (
        sheet(images, cmap="gray", vmin=0, vmax=1),
        sheet({"": None, **errors}, cmap="RdBu_r", vmin=-ERROR, vmax=ERROR),
    )


def m_mode_sheet(films: Mapping[str, NDArray[np.float32]]) -> Figure:
    """The middle row of films against time, which runs to the right through two heartbeats.

    Films are ``(frames, height, width)`` in window units, all of one shape.
    """
    shown = {}
    for name, film in films.items():
        row = film[:, film.shape[1] // 2]
        beats = np.concatenate([row, row])
        shown[name] = np.repeat(beats.T, max(1, row.shape[1] // len(beats)), axis=1)
    return sheet(shown, cmap="gray", vmin=0, vmax=1)


def sheet(images: Mapping[str, NDArray[Any] | None], **look: Any) -> Figure:
    """Images of one shape in rows, each below its name, pixel by pixel.

    Every pixel of an image is a whole number of pixels of the figure, so that nothing is
    smoothed. None leaves a place empty; ``look`` is that of matplotlib's ``imshow``.
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


def paired_differences(
    results: Mapping[str, Mapping[str, Mapping[str, float]]],
    metrics: Sequence[str],
    left_out: Sequence[str] = (),
) -> Figure:
    """Gains over linear: one panel per metric, row per method and dot per subject; bars are means.

    Results are by method, subject and metric. Without linear, the figures themselves are shown.
    ``left_out`` names ceilings, which are far off the scale.
    """
    base = results.get(BASE)
    names = [n for n in results if n not in left_out and not (base and n == BASE)]
    height = 0.8 + 0.34 * max(1, len(names))
    figure = Figure(figsize=(4.6 * len(metrics), height), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        axis.axvline(0, color="0.6", linewidth=1)
        for row, name in enumerate(names):
            values = [
                figures[metric] - (base[subject][metric] if base else 0.0)
                for subject, figures in results[name].items()
                if metric in figures and (not base or metric in base.get(subject, {}))
            ]
            values = [v for v in values if np.isfinite(v)]
            if values:
                axis.plot(values, [row] * len(values), "o", color="C0", markersize=4, alpha=0.35)
                axis.plot(
                    [np.mean(values)], [row], "|", color="C3", markersize=16, markeredgewidth=2
                )
        axis.set_xlabel(f"{metric} over {BASE}" if base else metric)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def calibration_figure(rows: Sequence[Row], means: Mapping[str, Any]) -> Figure:
    """Two panels: how often intervals hold, and spread against error, slice by slice.

    ``rows`` come from the protocol `calid.evaluation.uncertainty`, and each subject has a colour;
    ``means`` has each metric's mean over subjects and its interval, as in ``summary.json``.
    """
    figure = Figure(figsize=(9.2, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    levels = {
        int(n.removeprefix("inside_")): m for n, m in means.items() if n.startswith("inside_")
    }
    found = {level: levels[level] for level in sorted(levels) if levels[level]}
    left.plot([0, 100], [0, 100], color="0.6", linewidth=1)
    if found:
        low, centre, high = np.array(
            [[f[n] for n in ("low", "mean", "high")] for f in found.values()]
        ).T
        left.errorbar(list(found), centre, [centre - low, high - centre], marker="o", capsize=3)
    left.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    left.set_xlabel("interval of the samples, %")
    left.set_ylabel("true pixels within it, %")
    spread, error = (np.concatenate([r.figures[n] for r in rows]) for n in ("spread", "error"))
    subjects = sorted({row.subject for row in rows})
    colours = [subjects.index(row.subject) for row in rows for _ in row.figures["spread"]]
    known = np.isfinite(spread) & np.isfinite(error)
    top = 1.05 * max(spread[known].max(initial=0.01), error[known].max(initial=0.01))
    right.plot([0, top], [0, top], color="0.6", linewidth=1)
    right.scatter(spread[known], error[known], c=np.array(colours)[known], cmap="tab20", s=14)
    right.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    right.set_xlabel("spread of a slice's samples")
    right.set_ylabel("error of their average")
    return figure
