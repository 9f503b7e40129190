"""What a page shows: panels side by side, each an image and what is laid over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calid.stack import Intensity

__all__ = ["Layer", "Marks", "Origin", "Panel", "Scene"]

Origin = Literal["acquired", "interpolated", "generated", "unknown"]
"""Where slices come from that are not the scanner's own; ``unknown`` without a record."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Voxels on a grid.

    Parameters
    ----------
    data
        Stored values, shape ``(frames, stored slices, height, width)``.
    affine
        From indices ``(column, row, shown slice)`` to page millimetres, shape ``(4, 4)``.
    slices
        Shape ``(shown slices,)``; the stored slice that is shown in each place. Thick slices
        are stored once and shown several times.
    window
        Values that become black and white (or the ends of a colour scale), image units.
    intensity
        Slope and intercept of the stored values.
    labels
        Values are labels, no intensities.
    """

    data: NDArray[np.generic]
    affine: NDArray[np.float64]
    slices: NDArray[np.intp]
    window: tuple[float, float]
    intensity: Intensity = field(default_factory=Intensity)
    labels: bool = False


@dataclass(frozen=True, eq=False)
class Marks:
    """Which shown slices are the scanner's.

    Parameters
    ----------
    origin
        Of all other slices.
    acquired
        Indices of shown slices that are acquired, increasing; of thick slices their centres
        (which may lie between two shown slices).
    thick
        Number of shown slices that one slice of the volume takes.
    """

    origin: Origin
    acquired: NDArray[np.float64]
    thick: int = 1


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
    """A whole page.

    Parameters
    ----------
    panels
        From left to right.
    directions
        Letters of the axes, from `DisplayFrame.directions`.
    frame_times
        Shape ``(frames,)``, seconds.
    centre
        Shape ``(3,)``, page millimetres: where the page opens.
    """

    panels: Sequence[Panel]
    directions: dict[str, tuple[str, str]]
    frame_times: NDArray[np.float64]
    centre: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def layers(self) -> list[Layer]:
        """Every layer, in the order in which the page numbers them."""
        return [
            layer
            for panel in self.panels
            for layer in (panel.image, panel.uncertainty, panel.labels)
            if layer is not None
        ]
