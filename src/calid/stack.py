"""The two nouns of the package: what was acquired, and what is reconstructed.

Arrays are ``(frames, slices, height, width)``. The affine maps voxel indices
``(column, row, slice)``, in NIfTI's order, to scanner millimetres (RAS+).
Intensities stay in the *stored* scale of the file (before slope and intercept), so that an
acquired slice can be handed on bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from calid.errors import GeometryError

__all__ = ["Intensity", "SliceStack", "Volume"]


@dataclass(frozen=True)
class Intensity:
    """How stored values become image units: ``value = stored * slope + intercept``."""

    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Sparse short-axis slices as a scanner gives them, one film per slice.

    Parameters
    ----------
    data
        Stored intensities, shape ``(frames, slices, height, width)``, any real dtype.
    affine
        Shape ``(4, 4)``; maps ``(column, row, slice)`` to RAS+ millimetres. Its third column
        is the step from one slice to the next; with unequal gaps it is the mean step.
    positions
        Shape ``(slices,)``; millimetres along the slice normal, strictly increasing, 0 first.
    thickness
        Slice thickness in millimetres. NIfTI does not carry it, so readers there assume that
        slices touch.
    frame_times
        Shape ``(frames,)``; seconds after the R wave.
    intensity
        Slope and intercept of the stored values.
    rank
        Number of axes of the file it came from (3 to 7; those after the fourth have length 1),
        so that a film of one frame is written as it was read.
    source
        Where it came from, for messages. Never written to any output.
    cycle
        Seconds from one R wave to the next, where the file tells it beside the frames' times.
    resampled
        Slices, counted from 0, that were resampled in time because they had another number of
        frames; each maps to that number.

    Raises
    ------
    GeometryError
        If shapes disagree, there are fewer than two slices, or positions do not increase.
    """

    data: NDArray[np.generic]
    affine: NDArray[np.float64]
    positions: NDArray[np.float64]
    thickness: float
    frame_times: NDArray[np.float64]
    intensity: Intensity = field(default_factory=Intensity)
    rank: int = 3
    source: str = "stack"
    cycle: float | None = None
    resampled: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or 0 in self.data.shape:
            raise GeometryError(
                self.source,
                f"A stack has four axes, none empty; this one is {self.data.shape}.",
                "Pass an array of shape (frames, slices, height, width).",
            )
        if self.n_slices < 2:
            raise GeometryError(
                self.source,
                "Interpolation needs at least 2 slices and this input has 1.",
                "Give the whole short-axis stack in one file.",
            )
        if self.positions.shape != (self.n_slices,) or self.frame_times.shape != (self.n_frames,):
            raise GeometryError(
                self.source,
                f"{self.positions.size} positions and {self.frame_times.size} frame times do not "
                f"fit {self.n_slices} slices and {self.n_frames} frames.",
                "Give one position per slice and one time per frame.",
            )
        if not np.all(np.diff(self.positions) > 0):
            raise GeometryError(
                self.source,
                "Slice positions must increase strictly.",
                "Sort the slices along their normal and drop duplicates.",
            )

    @classmethod
    def of_array(
        cls,
        data: NDArray[np.generic],
        voxel_size: tuple[float, float, float],
        thickness: float | None = None,
        frame_times: NDArray[np.float64] | None = None,
    ) -> Self:
        """A stack of evenly spaced slices that is in memory already.

        Parameters
        ----------
        data
            ``(slices, height, width)``, or with frames in front; any real dtype.
        voxel_size
            From slice to slice, from row to row and from column to column, in mm.
        thickness
            Of a slice in mm; slices touch if nothing is said.
        frame_times
            Seconds after the R wave; a beat of one second if nothing is said.

        Raises
        ------
        GeometryError
            If axes or sizes make no stack.
        """
        shown = data[None] if data.ndim == 3 else data
        if shown.ndim != 4 or not (np.isfinite(voxel_size).all() and min(voxel_size) > 0):
            raise GeometryError(
                "array",
                f"An array of shape {data.shape} with voxels of {voxel_size} mm is no stack.",
                "Give (slices, height, width) or (frames, slices, height, width), sizes above 0.",
            )
        through, row, column = voxel_size
        frames = shown.shape[0]
        return cls(
            data=shown,
            affine=np.diag([column, row, through, 1.0]),
            positions=through * np.arange(shown.shape[1], dtype=np.float64),
            thickness=through if thickness is None else thickness,
            frame_times=np.arange(frames) / frames if frame_times is None else frame_times,
            rank=data.ndim,
            source="array",
        )

    @property
    def n_frames(self) -> int:
        """Number of frames of the film; 1 for a static stack."""
        return int(self.data.shape[0])

    @property
    def n_slices(self) -> int:
        """Number of acquired slices."""
        return int(self.data.shape[1])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(frames, slices, height, width)``."""
        frames, slices, height, width = self.data.shape
        return frames, slices, height, width

    @property
    def pixel_spacing(self) -> tuple[float, float]:
        """In-plane spacing in mm as ``(row step, column step)``."""
        steps = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(steps[1]), float(steps[0])

    @property
    def gaps(self) -> NDArray[np.float64]:
        """Distances between neighbouring slices in mm, shape ``(slices - 1,)``."""
        return np.diff(self.positions)


@dataclass(frozen=True, eq=False)
class Volume:
    """A dense reconstruction that still knows which of its slices are real.

    Parameters
    ----------
    data
        Stored intensities, shape ``(frames, slices, height, width)``, the stack's dtype.
    affine
        Shape ``(4, 4)``; its third column is the dense through-plane step.
    positions
        Shape ``(slices,)``; millimetres on the stack's own axis. Acquired slices may lie a
        little beside the even planes of ``affine``: these are their true positions.
    acquired
        Shape ``(slices,)``; true where a slice is the scanner's, false where it is generated.
    frame_times
        Shape ``(frames,)``; seconds.
    intensity
        Slope and intercept of the stored values.
    rank
        Number of axes when written (3 to 7).
    uncertainty
        Standard deviation over samples in image units, same shape as ``data``, zero on
        acquired slices; absent unless it was asked for.
    frames_together
        Most frames whose slices were generated together; 1 if each was generated alone.
    region
        Rows and columns (first, and one past the last) that networks generated; outside them,
        generated slices are registered neighbours. None if networks generated everything.
    provenance
        How it was made, as the record beside a file has it; empty if nothing is known.
    """

    data: NDArray[np.generic]
    affine: NDArray[np.float64]
    positions: NDArray[np.float64]
    acquired: NDArray[np.bool_]
    frame_times: NDArray[np.float64]
    intensity: Intensity = field(default_factory=Intensity)
    rank: int = 3
    uncertainty: NDArray[np.float32] | None = None
    frames_together: int = 1
    region: tuple[tuple[int, int], tuple[int, int]] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        slices = self.data.shape[1]
        if self.positions.shape != (slices,) or self.acquired.shape != (slices,):
            raise GeometryError(
                "volume",
                f"{self.positions.size} positions and {self.acquired.size} marks do not fit "
                f"{slices} slices.",
                "Give one position and one mark per slice.",
            )

    @property
    def centre(self) -> tuple[int, int]:
        """Row and column in the middle of the region, or of the image if there is none."""
        height, width = self.data.shape[2:]
        (top, bottom), (left, right) = self.region or ((0, height), (0, width))
        return (top + bottom) // 2, (left + right) // 2

    @property
    def pixel_spacing(self) -> tuple[float, float]:
        """In-plane ``(row, column)`` spacing in mm."""
        return self.spacing[1:]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm as ``(through-plane, row step, column step)``."""
        steps = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(steps[2]), float(steps[1]), float(steps[0])
