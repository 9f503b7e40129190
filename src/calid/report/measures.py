"""Ventricular volumes measured both ways, and tables of them for the terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from calid import (
    Function,
    Measurement,
    Segmenter,
    SliceStack,
    Volume,
    cavity_volumes,
    heart_function,
)

__all__ = ["TITLES", "Column", "Volumes", "as_csv", "as_table", "measured"]

TITLES = MappingProxyType(
    {
        "lv_ml": "LV cavity (ml)",
        "rv_ml": "RV cavity (ml)",
        "myocardium_ml": "LV myocardium (ml)",
        "mass_g": "LV mass (g)",
        "lv_edv_ml": "LV EDV (ml)",
        "lv_esv_ml": "LV ESV (ml)",
        "lv_sv_ml": "LV SV (ml)",
        "lv_ef_percent": "LV EF (%)",
        "rv_edv_ml": "RV EDV (ml)",
        "rv_esv_ml": "RV ESV (ml)",
        "rv_sv_ml": "RV SV (ml)",
        "rv_ef_percent": "RV EF (%)",
        "ed_mass_g": "LV mass at ED (g)",
        "ed_frame": "ED frame (from 0)",
        "es_frame": "ES frame (from 0)",
    }
)
"""Of figures, by their names."""


class Volumes(NamedTuple):
    """Results of both ways of measuring, over the same depth; functions if the stack is a film."""

    sparse: Measurement | Function
    dense: Measurement | Function


@dataclass(frozen=True)
class Column:
    """The result of one of the two ways of measuring."""

    labels: str  # manual or network
    slices: int
    gap_mm: float  # mean distance of slices
    frames: Sequence[Measurement]  # of a pair, end-diastole first
    function: Function | None  # none of a single frame

    def figures(self) -> Mapping[str, float | None]:
        """The function of several frames, the volumes of one."""
        return self.function.figures() if self.function else self.frames[0].figures()

    def facts(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "labels": self.labels,
            "slices": self.slices,
            "slice_gap_mm": self.gap_mm,
            "frames": [frame.figures() for frame in self.frames],
            "function": self.function.figures() if self.function else None,
        }


def measured(stack: SliceStack, volume: Volume, segmenter: Segmenter) -> Volumes:
    """Label and measure a stack and its reconstruction.

    In a film, all acquired frames are labelled, to find end-diastole and end-systole; in the
    reconstruction, only these two. Raises a `DataError` if the left ventricle is not found.
    """
    labels = segmenter.label_volume(stack)
    sparse = cavity_volumes(labels, stack.positions, stack.pixel_spacing)

    def dense(frame: int) -> Measurement:
        one = slice(frame, frame + 1)
        times = volume.frame_times[one]
        still = replace(volume, data=volume.data[one], frame_times=times, uncertainty=None)
        return measured_densely(stack, still, segmenter)[0]

    if len(sparse) == 1:
        return Volumes(sparse[0], dense(0))
    function = heart_function(sparse)
    ed, es = function.ed_frame, function.es_frame
    both = heart_function([dense(ed), dense(es)], ed=0, es=1)
    return Volumes(function, replace(both, ed_frame=ed, es_frame=es))


def measured_densely(
    stack: SliceStack,
    volume: Volume,
    segmenter: Segmenter,
    on_frame: Callable[[int], None] = lambda frame: None,
) -> list[Measurement]:
    """Label and measure every frame of a reconstruction over the depth that its stack covers."""
    labels = segmenter.label_volume(volume, on_frame)
    reach = float(stack.gaps[0] / 2), float(stack.gaps[-1] / 2)
    source = f"{stack.source}, reconstructed"
    return cavity_volumes(labels, volume.positions, stack.pixel_spacing, reach, source)


def as_table(columns: Mapping[str, Column], pair: bool) -> list[str]:
    """Lines of a table with one column a way, and what has to be said below it."""
    rows = [
        ["", *columns],
        ["slices", *(str(c.slices) for c in columns.values())],
        ["distance (mm)", *(f"{c.gap_mm:.2f}" for c in columns.values())],
        ["labels", *(c.labels for c in columns.values())],
    ]
    figures = [column.figures() for column in columns.values()]
    for name in figures[0]:
        frame = name.endswith("frame")
        if not (frame and pair):  # of a pair, the two frames are known
            digits = 0 if frame else 1
            cells = ("-" if f[name] is None else f"{f[name]:.{digits}f}" for f in figures)
            rows.append([TITLES[name], *cells])
    lines = [f"{row[0]:20}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows]
    lines.append("sparse: the acquired slices, Simpson's rule.")
    if "dense" in columns:
        lines.append("dense: the reconstruction over the same depth; new slices are estimates.")
        if columns["sparse"].labels == "manual":
            lines.append("The manual labels are the sparse ones; dense is labelled by the network.")
    return [*lines, "Research use only; not a medical device."]


def as_csv(columns: Mapping[str, Column]) -> str:
    """One line a way, under the names of the figures."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    figures = [column.figures() for column in columns.values()]
    writer.writerow(["way", "labels", "slices", "slice_gap_mm", *figures[0]])
    for (way, column), row in zip(columns.items(), figures, strict=True):
        cells = ("" if value is None else f"{value:.6g}" for value in row.values())
        writer.writerow([way, column.labels, column.slices, f"{column.gap_mm:.6g}", *cells])
    return buffer.getvalue()
