"""From stacks and volumes to the panels of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calid.baselines.linear import linear
from calid.data.intensity import IntensityWindow
from calid.errors import GeometryError
from calid.geometry.affine import dense_affine
from calid.inference.densify import densify
from calid.io.labels import check_same_grid
from calid.labels import CLASSES
from calid.stack import SliceStack, Volume
from calid.view.frame import DisplayFrame
from calid.view.scene import Layer, Marks, Panel, Scene

__all__ = ["Overlays", "as_stack", "comparison", "comparison_scene", "lone_panel", "make_scene"]

Overlays = tuple[SliceStack | None, NDArray[np.uint8] | None]
"""Uncertainty in image units and labels, on the grid of the volume that they belong to."""


def make_scene(
    panels: Sequence[Panel],
    reference: SliceStack | Volume,
    centre: tuple[float, float] | None = None,
) -> Scene:
    """A page of panels whose affines still lead to the scanner's millimetres.

    Parameters
    ----------
    reference
        Whose planes become the planes of the page.
    centre
        Row and column of it where the page opens; the middle if nothing is said.
    """
    frame = DisplayFrame.of(reference.affine, reference.data.shape)

    def turned(layer: Layer | None) -> Layer | None:
        return layer and replace(layer, affine=frame.turn(layer.affine))

    placed = [
        replace(
            panel,
            image=replace(panel.image, affine=frame.turn(panel.image.affine)),
            uncertainty=turned(panel.uncertainty),
            labels=turned(panel.labels),
        )
        for panel in panels
    ]
    _, slices, height, width = reference.data.shape
    row, column = centre or ((height - 1) / 2, (width - 1) / 2)
    opens = frame.turn(reference.affine) @ [column, row, (slices - 1) / 2, 1]
    return Scene(placed, frame.directions(), reference.frame_times, opens[:3])


def comparison_scene(stack: SliceStack, volume: Volume) -> Scene:
    """A page with a stack, its linear interpolation and its reconstruction side by side."""
    marks = Marks("generated", np.flatnonzero(volume.acquired).astype(np.float64))
    return make_scene(comparison(stack, volume, marks), volume, volume.centre)


def lone_panel(
    title: str, volume: SliceStack | Volume, marks: Marks, overlays: Overlays = (None, None)
) -> Panel:
    """One volume with its overlays.

    Slices that are thicker than two pixels are shown as thick as they are: the page must not
    interpolate what nobody acquired or generated.

    Parameters
    ----------
    marks
        In indices of the volume's own slices.
    """
    repeat = _repeats(volume)
    affine, slices = _thick(volume, repeat)
    uncertainty, labels = overlays
    return Panel(
        title=title,
        image=Layer(volume.data, affine, slices, _window(volume), volume.intensity),
        marks=Marks(marks.origin, _centres(marks.acquired, repeat), repeat),
        uncertainty=None if uncertainty is None else _heat(uncertainty, affine, slices),
        labels=None
        if labels is None
        else Layer(labels, affine, slices, (0.0, float(max(CLASSES.values()))), labels=True),
    )


def comparison(
    stack: SliceStack,
    dense: SliceStack | Volume,
    marks: Marks,
    title: str = "CaLID",
    overlays: Overlays = (None, None),
) -> list[Panel]:
    """As acquired, linear and reconstructed, all on the dense grid and one grey scale.

    Parameters
    ----------
    stack
        What the dense volume was reconstructed from.
    marks
        Of the dense volume, in indices of its own slices.

    Raises
    ------
    GeometryError
        If the dense volume lies elsewhere than a reconstruction of the stack would.
    """
    count = dense.data.shape[1]
    factor, rest = divmod(count - 1, stack.n_slices - 1)
    if rest or not factor or dense.data.shape[0] != stack.n_frames:
        raise GeometryError(
            getattr(dense, "source", title),
            f"{count} slices in {dense.data.shape[0]} frames are no reconstruction of "
            f"{stack.n_slices} slices in {stack.n_frames}.",
            "Give the stack that this volume was reconstructed from.",
        )
    between = densify(stack, linear, factor)
    check_same_grid(
        as_stack(dense), as_stack(between, stack.source), getattr(dense, "source", title)
    )
    repeat = _repeats(dense)
    affine, slices = _thick(dense, repeat)
    window = _window(stack)
    nearest = np.floor(np.arange(count) / factor + 0.5).astype(np.intp)
    centres = _centres(np.arange(stack.n_slices, dtype=np.float64) * float(factor), repeat)
    acquired = Layer(stack.data, affine, nearest[slices], window, stack.intensity)
    interpolated = Layer(between.data, affine, slices, window, between.intensity)
    last = lone_panel(title, dense, marks, overlays)
    return [
        Panel("As acquired", acquired, Marks("acquired", centres, repeat)),
        Panel("Linear", interpolated, Marks("interpolated", centres, repeat)),
        replace(last, image=replace(last.image, window=window)),
    ]


def as_stack(volume: SliceStack | Volume, source: str = "volume") -> SliceStack:
    """A volume as a stack, for what is written for stacks."""
    if isinstance(volume, SliceStack):
        return volume
    return SliceStack(
        data=volume.data,
        affine=volume.affine,
        positions=volume.positions,
        thickness=volume.spacing[0],
        frame_times=volume.frame_times,
        intensity=volume.intensity,
        rank=volume.rank,
        source=source,
    )


def _repeats(volume: SliceStack | Volume) -> int:
    """How often a slice is shown so that its voxels are about as thick as they are wide."""
    steps = np.linalg.norm(volume.affine[:3, :3], axis=0)
    return max(1, round(float(steps[2] / steps[:2].mean())))


def _thick(
    volume: SliceStack | Volume, repeat: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Affine of the repeated slices, and which slice is shown where."""
    step = float(np.linalg.norm(volume.affine[:3, 2]))
    affine = dense_affine(volume.affine, step / repeat)
    affine[:3, 3] -= affine[:3, 2] * (repeat - 1) / 2
    return affine, np.repeat(np.arange(volume.data.shape[1]), repeat)


def _centres(acquired: NDArray[np.float64], repeat: int) -> NDArray[np.float64]:
    return acquired * repeat + (repeat - 1) / 2


def _window(volume: SliceStack | Volume) -> tuple[float, float]:
    window, scale = IntensityWindow.of(volume.data, volume.intensity), volume.intensity
    low, high = (v * scale.slope + scale.intercept for v in (window.low, window.high))
    return min(low, high), max(low, high)


def _heat(uncertainty: SliceStack, affine: NDArray[np.float64], slices: NDArray[np.intp]) -> Layer:
    """Uncertainty on a scale from a tenth of its highest values: zero is transparent."""
    scale = uncertainty.intensity
    spread = uncertainty.data.astype(np.float32) * scale.slope + scale.intercept
    positive = spread[spread > 0]
    high = float(np.percentile(positive, 99.5)) if positive.size else 1.0
    return Layer(uncertainty.data, affine, slices, (high / 10, high), scale)
