"""`calid inspect`: what is in an input, what would be used of it, and what would not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from calid.errors import CalidError
from calid.inference.options import Reading
from calid.words import count, span

if TYPE_CHECKING:
    from rich.table import Table

    from calid.io.dicom_images import DicomReport
    from calid.io.inspect import Inspection
    from calid.stack import SliceStack

__all__ = ["Inspect"]


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Say what an input holds: slices, gaps, frames, and what is left out and why.

    Nothing that could name a patient is printed or written. The exit code is that of reading
    with the same options, zero if the input can be used.
    """

    input: Annotated[Path, tyro.conf.Positional]
    """NIfTI stack, or a DICOM folder, zip or file."""
    json: Path | None = None
    """File to write the same to, as JSON."""
    shifts: bool = False
    """Look for slices whose heart is shifted from that of their
    neighbours, as reconstruct does; takes some seconds."""
    reading: Reading = field(default_factory=Reading)

    def run(self) -> None:
        """Print what was found, then fail as reading would."""
        from rich.console import Console

        from calid.cli.console import as_options, say
        from calid.io.atomic import check_output
        from calid.io.sidecar import write_json

        if self.json is not None:
            check_output(self.json, [self.input], (".json",))
        found = self.reading.inspect(self.input)
        notes = [*found.warnings, *(_shifts(found) if self.shifts else [])]
        found = replace(found, warnings=[as_options(note) for note in notes])
        report = found.report
        headline = f"{self.input}: {found.format}"
        if report:
            headline += f", {count(report.images, 'image')} in {count(report.files, 'file')}"
        say(headline)
        console = Console(highlight=False, markup=False)
        for title, table in _tables(found):
            console.print(title)
            console.print(table)
        if report and report.decision:
            console.print("Decision")
            for sentence in report.decision:
                # Not wrapped: a line that began with another group's name would mislead.
                console.print(f"  {sentence}", soft_wrap=True)
        for note in found.warnings:
            console.print("warning", note, style="yellow")
        for problem in report.problems if report else ():
            console.print("problem", problem, style="red")
        if self.json is not None:
            write_json(found.facts(), self.json)
            say(str(self.json))
        if found.error is not None:
            raise found.error


def _shifts(found: Inspection) -> list[str]:
    """A warning of slices whose heart lies off its neighbours; empty if there are none."""
    from calid.segmentation.heart import FEWEST, find_shifts, told
    from calid.segmentation.segment import load_segmenter

    if found.stack is None or found.stack.n_slices < FEWEST:
        return []
    try:
        note = told(find_shifts(found.stack, load_segmenter("cpu")))
    except CalidError as error:  # of a grid that networks cannot take
        note = f"shifts between slices were not looked for: {error}"
    return [note] * bool(note)


def _tables(found: Inspection) -> Iterator[tuple[str, Table]]:
    """Titles and tables of the stack, the slices that fit together, and what is left out."""
    from rich.table import Table

    def table(*columns: str, left: int = 0) -> Table:
        made = Table(*columns, box=None, padding=(0, 2))
        for column in made.columns[left:]:
            column.justify = "right"
        return made

    if found.stack is not None:
        grid = Table.grid(padding=(0, 2))
        for name, text in _stack_lines(found.stack, found.report).items():
            grid.add_row(f"  {name}", text)
        yield "Short-axis stack", grid
    if found.report and found.report.kept:
        kept = found.report.kept
        slices = table("slice", "position mm", "gap mm", "frames", "series")
        gaps = ["", *(f"{b.position_mm - a.position_mm:.2f}" for a, b in pairwise(kept))]
        for number, (each, gap) in enumerate(zip(kept, gaps, strict=True)):
            series = ", ".join(map(str, each.series))
            position = f"{each.position_mm:.2f}"
            slices.add_row(str(number), position, gap, str(each.frames), series)
        yield "Slices that fit together", slices
    if found.report and found.report.left_out:
        views = table("reason", "images", "places", "matrix", "degrees off", "series", left=1)
        for view in found.report.left_out:
            views.add_row(
                view.reason,
                str(view.images),
                "" if view.planes is None else str(view.planes),
                "" if view.matrix is None else "{} x {}".format(*view.matrix),
                "" if view.angle_deg is None else f"{view.angle_deg:.1f}",
                ", ".join(map(str, view.series)),
            )
        yield "Left out", views


def _stack_lines(stack: SliceStack, report: DicomReport | None) -> dict[str, str]:
    from calid.io.inspect import axes

    n_frames, slices, rows, columns = stack.shape
    frames = "1"
    if n_frames > 1:
        first, last = 1000 * stack.frame_times[0], 1000 * stack.frame_times[-1]
        frames = f"{n_frames}, {first:.0f} to {last:.0f} ms"
        if report is not None and report.time_from:
            frames += f", by {report.time_from}"
            if report.time_spread_s > 0:
                frames += f"; slices differ by up to {1000 * report.time_spread_s:.0f} ms"
    values = f"{stack.data.dtype}, {stack.data.min()} to {stack.data.max()}"
    if (stack.intensity.slope, stack.intensity.intercept) != (1, 0):
        values += f", times {stack.intensity.slope:.6g} plus {stack.intensity.intercept:.6g}"
    step = "{:.4g} x {:.4g} mm".format(*stack.pixel_spacing)
    return {
        "slices": f"{slices}, {span(stack.gaps)} mm apart, {stack.thickness:.4g} mm thick",
        "frames": frames,
        "matrix": f"{rows} rows x {columns} columns of {step}",
        "axes": "columns to the {}, rows to the {}, slices to the {}".format(*axes(stack)),
        "values": values,
    }
