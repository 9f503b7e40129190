"""`calid inspect`: what is in an input, what would be used of it, and what would not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from calid.errors import CalidError
from calid.inference.options import Reading
from calid.words import count, span

if TYPE_CHECKING:
    from rich.console import Console

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
    """Look for slices whose heart lies off its neighbours, as
    reconstruct does: a network's work of some seconds."""
    reading: Reading = field(default_factory=Reading)

    def run(self) -> None:
        """Print what was found, then fail as reading would."""
        from rich.console import Console

        from calid.cli.console import say
        from calid.io.atomic import check_output
        from calid.io.sidecar import write_json

        if self.json is not None:
            check_output(self.json, [self.input], (".json",))
        found = self.reading.inspect(self.input)
        if self.shifts:
            found = _with_shifts(found)
        say(_headline(self.input, found))
        console = Console(highlight=False, markup=False)
        if found.stack is not None:
            _print_stack(console, found.stack, found.report)
        if found.report is not None:
            _print_slices(console, found.report)
            _print_left_out(console, found.report)
            _print_decision(console, found.report)
        for note in found.warnings:
            console.print("warning", note, style="yellow")
        for problem in found.report.problems if found.report else ():
            console.print("problem", problem, style="red")
        if self.json is not None:
            write_json(found.facts(), self.json)
            say(str(self.json))
        if found.error is not None:
            raise found.error


def _with_shifts(found: Inspection) -> Inspection:
    """Add a warning of slices whose heart lies off its neighbours."""
    from calid.segmentation.heart import FEWEST, find_shifts, told
    from calid.segmentation.segment import load_segmenter

    if found.stack is None or found.stack.n_slices < FEWEST:
        return found
    try:
        note = told(find_shifts(found.stack, load_segmenter("cpu")))
    except CalidError as error:  # of a grid that networks cannot take
        note = f"shifts between slices were not looked for: {error}"
    return replace(found, warnings=[*found.warnings, *[note] * bool(note)])


def _headline(path: Path, found: Inspection) -> str:
    report = found.report
    if report is None:
        return f"{path}: {found.format}"
    return (
        f"{path}: {found.format}, {count(report.images, 'image')} in {count(report.files, 'file')}"
    )


def _print_stack(console: Console, stack: SliceStack, report: DicomReport | None) -> None:
    from rich.table import Table

    from calid.io.inspect import axes

    frames, slices, rows, columns = stack.shape
    step = "{:.4g} x {:.4g} mm".format(*stack.pixel_spacing)
    to = "columns to the {}, rows to the {}, slices to the {}".format(*axes(stack))
    values = f"{stack.data.dtype}, {stack.data.min()} to {stack.data.max()}"
    if (stack.intensity.slope, stack.intensity.intercept) != (1, 0):
        values += f", times {stack.intensity.slope:.6g} plus {stack.intensity.intercept:.6g}"
    lines = {
        "slices": f"{slices}, {span(stack.gaps)} mm apart, {stack.thickness:.4g} mm thick",
        "frames": _times(stack, report) if frames > 1 else "1",
        "matrix": f"{rows} rows x {columns} columns of {step}",
        "axes": to,
        "values": values,
    }
    table = Table.grid(padding=(0, 2))
    for name, text in lines.items():
        table.add_row(f"  {name}", text)
    console.print("Short-axis stack")
    console.print(table)


def _times(stack: SliceStack, report: DicomReport | None) -> str:
    first, last = 1000 * stack.frame_times[0], 1000 * stack.frame_times[-1]
    text = f"{stack.n_frames}, {first:.0f} to {last:.0f} ms"
    if report is not None and report.time_from:
        text += f", by {report.time_from}"
        if report.time_spread_s > 0:
            text += f"; slices differ by up to {1000 * report.time_spread_s:.0f} ms"
    return text


def _print_slices(console: Console, report: DicomReport) -> None:
    from rich.table import Table

    if not report.kept:
        return
    table = Table("slice", "position mm", "gap mm", "frames", "series", box=None, padding=(0, 2))
    for column in table.columns:
        column.justify = "right"
    before: float | None = None
    for number, kept in enumerate(report.kept):
        gap = "" if before is None else f"{kept.position_mm - before:.2f}"
        before = kept.position_mm
        series = ", ".join(map(str, kept.series))
        table.add_row(str(number), f"{kept.position_mm:.2f}", gap, str(kept.frames), series)
    console.print("Slices that fit together")
    console.print(table)


def _print_left_out(console: Console, report: DicomReport) -> None:
    from rich.table import Table

    if not report.left_out:
        return
    names = ("reason", "images", "places", "matrix", "degrees off", "series")
    table = Table(*names, box=None, padding=(0, 2))
    for column in table.columns[1:]:
        column.justify = "right"
    for view in report.left_out:
        table.add_row(
            view.reason,
            str(view.images),
            "" if view.planes is None else str(view.planes),
            "" if view.matrix is None else "{} x {}".format(*view.matrix),
            "" if view.angle_deg is None else f"{view.angle_deg:.1f}",
            ", ".join(map(str, view.series)),
        )
    console.print("Left out")
    console.print(table)


def _print_decision(console: Console, report: DicomReport) -> None:
    if not report.decision:
        return
    console.print("Decision")
    for sentence in report.decision:
        # Unbroken: a line that begins with another's name would pass for it.
        console.print(f"  {sentence}", soft_wrap=True)
