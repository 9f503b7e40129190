"""What a page shows: panels side by side, made of stacks and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calid import (
    CLASSES,
    Intensity,
    IntensityWindow,
    SliceStack,
    Volume,
    check_same_grid,
    densify,
    linear,
)
from calid.errors import GeometryError

__all__ = [
    "DisplayFrame",
    "Layer",
    "Marks",
    "Overlays",
    "Panel",
    "Scene",
    "as_stack",
    "comparison",
    "comparison_scene",
    "letters",
    "lone_panel",
    "make_scene",
]

Origin = Literal["acquired", "interpolated", "generated", "unknown"]
"""Where slices come from that are not the scanner's own; ``unknown`` without a record."""

Overlays = tuple[SliceStack | None, NDArray[np.uint8] | None]
"""Uncertainty in image units and labels, on the grid of the volume that they belong to."""

NAMES = (("R", "L"), ("A", "P"), ("H", "F"))
"""Of the positive and the negative direction of each RAS axis."""

OBLIQUE = 0.38
"""Least share of a unit vector that gets a letter of its own: about 22 degrees."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Voxels on a grid; thick slices are stored once and shown several times."""

    data: NDArray[np.generic]  # stored values, (frames, stored slices, height, width)
    affine: NDArray[np.float64]  # (4, 4), from (column, row, shown slice) to page millimetres
    slices: NDArray[np.intp]  # (shown slices,), the stored slice in each place
    window: tuple[float, float]  # what becomes black and white, image units
    intensity: Intensity = field(default_factory=Intensity)
    labels: bool = False  # values are labels, not intensities


@dataclass(frozen=True, eq=False)
class Marks:
    """Which shown slices are acquired.

    ``acquired`` has their indices, increasing; of thick slices the centres, which may lie
    between two shown slices.
    """

    origin: Origin  # of all other slices
    acquired: NDArray[np.float64]
    thick: int = 1  # shown slices that one slice of the volume takes


@dataclass(frozen=True, eq=False)
class Panel:
    """One column of the page."""

    title: str
    image: Layer
    marks: Marks
    uncertainty: Layer | None = None
    labels: Layer | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """A whole page."""

    panels: Sequence[Panel]  # from left to right
    directions: dict[str, tuple[str, str]]  # of `DisplayFrame.directions`
    frame_times: NDArray[np.float64]  # (frames,), seconds
    centre: NDArray[np.float64]  # (3,), where the page opens, page millimetres

    def layers(self) -> list[Layer]:
        """Every layer, in the order in which the page numbers them."""
        every = (layer for p in self.panels for layer in (p.image, p.uncertainty, p.labels))
        return [layer for layer in every if layer is not None]


@dataclass(frozen=True, eq=False)
class DisplayFrame:
    """Right, up and towards the viewer of the short-axis plane.

    The stack's own planes become the planes of the page, whatever the scanner's axes. Voxels
    stay as they are; only the affine that the page gets is turned, and never mirrored.
    """

    axes: NDArray[np.float64]  # (3, 3), rows are these directions, unit vectors in RAS
    centre: NDArray[np.float64]  # (3,), the RAS point in mm that becomes the page's origin

    @classmethod
    def of(cls, affine: NDArray[np.float64], shape: tuple[int, ...]) -> DisplayFrame:
        """Frame in which a stack lies as on a reading station.

        Left, or else posterior, is on the right-hand side; head, or else anterior, is at the
        top. The view is from the side that makes this a rotation. ``affine`` is ``(4, 4)``, to
        RAS mm; ``shape`` ends with ``(slices, height, width)``.
        """
        columns, rows = (affine[:3, k] / np.linalg.norm(affine[:3, k]) for k in (0, 1))
        right, up = columns, rows
        if np.argmax(abs(columns)) > np.argmax(abs(rows)):
            right, up = rows, columns
        right = -right * np.sign(right[np.argmax(abs(right))])
        up = up * np.sign(up[np.argmax(abs(up))])
        up = up - (up @ right) * right  # header rounding can leave them a little askew
        up /= np.linalg.norm(up)
        middle = [*((size - 1) / 2 for size in shape[:-4:-1]), 1]
        return cls(np.stack([right, up, np.cross(right, up)]), (affine @ middle)[:3])

    def turn(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        """The affine, shape ``(4, 4)``, from the same voxels to page millimetres."""
        turned = np.eye(4)
        turned[:3] = self.axes @ affine[:3]
        turned[:3, 3] -= self.axes @ self.centre
        return turned

    def directions(self) -> dict[str, tuple[str, str]]:
        """Letters of both ends of every axis: ``right``, ``up`` and ``towards``."""
        named = zip(("right", "up", "towards"), self.axes, strict=True)
        return {name: (letters(axis), letters(-axis)) for name, axis in named}


def letters(direction: NDArray[np.float64]) -> str:
    """Patient directions of a RAS unit vector, the largest share first: ``L``, ``PF``, ..."""
    order = np.argsort(-abs(direction), kind="stable")
    kept = [k for k in order if abs(direction[k]) >= OBLIQUE]
    return "".join(NAMES[k][int(direction[k] < 0)] for k in kept)


def make_scene(
    panels: Sequence[Panel],
    reference: SliceStack | Volume,
    centre: tuple[float, float] | None = None,
) -> Scene:
    """A page of panels whose affines still lead to the scanner's millimetres.

    The planes of ``reference`` become those of the page, which opens at its row and column
    ``centre``, by default the middle.
    """
    frame = DisplayFrame.of(reference.affine, reference.data.shape)

    def turned(layer: Layer) -> Layer:
        return replace(layer, affine=frame.turn(layer.affine))

    placed = [
        replace(
            panel,
            image=turned(panel.image),
            uncertainty=panel.uncertainty and turned(panel.uncertainty),
            labels=panel.labels and turned(panel.labels),
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

    Slices that are thicker than two pixels are shown as thick as they are, so that the page
    does not interpolate between them. ``marks`` are in indices of the volume's own slices.
    """
    affine, slices, repeat = _thick(volume)
    uncertainty, labels = overlays
    classes = 0.0, float(max(CLASSES.values()))
    return Panel(
        title=title,
        image=Layer(volume.data, affine, slices, _window(volume), volume.intensity),
        marks=Marks(marks.origin, _centres(marks.acquired, repeat), repeat),
        uncertainty=None if uncertainty is None else _heat(uncertainty, affine, slices),
        labels=None if labels is None else Layer(labels, affine, slices, classes, labels=True),
    )


def comparison(
    stack: SliceStack,
    dense: SliceStack | Volume,
    marks: Marks,
    title: str = "CaLID",
    overlays: Overlays = (None, None),
) -> list[Panel]:
    """As acquired, linear and reconstructed, all on the dense grid and one grey scale.

    The dense volume was reconstructed from ``stack``; ``marks`` are in indices of its slices.

    Raises
    ------
    GeometryError
        If the dense volume lies elsewhere than a reconstruction of the stack would.
    """
    frames, count = dense.data.shape[:2]
    source = getattr(dense, "source", title)
    factor, rest = divmod(count - 1, stack.n_slices - 1)
    if rest or not factor or frames != stack.n_frames:
        raise GeometryError(
            source,
            f"{count} slices in {frames} frames are no reconstruction of "
            f"{stack.n_slices} slices in {stack.n_frames}.",
            "Give the stack that this volume was reconstructed from.",
        )
    between = densify(stack, linear, factor)
    check_same_grid(as_stack(dense), as_stack(between, stack.source), source)
    affine, slices, repeat = _thick(dense)
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
    """A volume as a stack, for functions that take stacks."""
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


def _thick(volume: SliceStack | Volume) -> tuple[NDArray[np.float64], NDArray[np.intp], int]:
    """Repeat slices until their voxels are about as thick as they are wide.

    Returns the affine of the repeated slices, which slice is shown where, and how often.
    """
    *edges, step = np.linalg.norm(volume.affine[:3, :3], axis=0).tolist()
    repeat = max(1, round(step / float(np.mean(edges))))
    affine = volume.affine.copy()
    affine[:3, 2] = affine[:3, 2] / np.linalg.norm(affine[:3, 2]) * (step / repeat)
    affine[:3, 3] -= affine[:3, 2] * (repeat - 1) / 2
    return affine, np.repeat(np.arange(volume.data.shape[1]), repeat), repeat


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
