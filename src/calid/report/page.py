"""One HTML page about a reconstruction, to check it before use and to send to a colleague."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from calid import SelfCheck, SliceStack, Volume
from calid.html import templates
from calid.io.sidecar import write_text
from calid.report.figures import comparison, example_sheets, png, spread_figure
from calid.report.measures import TITLES, Volumes
from calid.words import span

__all__ = ["Report", "page", "write_page"]

LEVEL = 0.1
"""dB within which two methods are called level."""

SHOWN = (
    *("lv_edv_ml", "lv_esv_ml", "lv_ef_percent", "rv_edv_ml", "rv_esv_ml", "rv_ef_percent"),
    *("ed_mass_g", "lv_ml", "rv_ml", "mass_g"),
)
"""Measures in a report, as far as there are any."""

LABELS = 6
"""Most positions that are written below the ruler: more would overlap on a phone."""


@dataclass(frozen=True, eq=False)
class Report:
    """All that a page shows. It is shown as it is, so none of it may name a patient or a file."""

    stack: SliceStack
    volume: Volume
    record: Mapping[str, Any]  # as `calid.reconstruct_file` gives it
    files: Mapping[str, str]  # what was written, to its SHA-256
    command: str  # makes the volume again
    warnings: Sequence[str]
    check: SelfCheck | str  # or the reason why there is none
    volumes: Volumes | str  # likewise


def write_page(report: Report, path: Path) -> None:
    """Write the page, complete or not at all; see `calid.io.atomic`."""
    write_text(page(report), path)


def page(report: Report) -> str:
    """The page: one HTML text without scripts that opens from disk and requests nothing."""
    environment = templates("calid.report")
    environment.filters.update(png=_base64_png, span=span)
    stack, volume, check, volumes = report.stack, report.volume, report.check, report.volumes
    first, *options = report.command.split(" --")
    hashes = {
        "input": report.record["input"]["sha256"],
        **report.files,
        **{f"weights: {name}": sha for name, sha in report.record["weights_sha256"].items()},
    }
    return environment.get_template("page.html.j2").render(
        vars(report)
        | {
            "planes": comparison(stack, volume),
            "ruler": _ruler(volume),
            "level": LEVEL,
            "scores": None if isinstance(check, str) else _scores(check),
            "hidden": None if isinstance(check, str) else _hidden_slice(check),
            "spread": None if volume.uncertainty is None else spread_figure(volume),
            "measures": None if isinstance(volumes, str) else _measures(volumes),
            "went_in": _went_in(stack),
            "came_out": _came_out(report),
            "command": [first, *(f"--{option}" for option in options)],
            "hashes": hashes.items(),
        }
    )


def _base64_png(figure: Figure) -> str:
    return base64.b64encode(png(figure)).decode("ascii")


def _ruler(volume: Volume) -> dict[str, list[Any]]:
    """Where the ticks of acquired and generated slices and the positions stand, in % of the width.

    Lengths are shares of the width, so that text keeps its size on every screen.
    """
    places = 2.0 + 96.0 * volume.positions / float(volume.positions[-1])
    real = np.flatnonzero(volume.acquired)
    step = max(1, -(-(len(real) - 1) // (LABELS - 1)))
    named = [*real[:-1:step], real[-1]]
    if len(named) > 2 and named[-1] - named[-2] < step * (real[1] - real[0]) / 2:
        del named[-2]  # it would touch the last one
    return {
        "acquired": [f"{x:.2f}" for x in places[volume.acquired]],
        "generated": [f"{x:.2f}" for x in places[~volume.acquired]],
        "named": [(f"{places[i]:.2f}", f"{volume.positions[i]:.4g}") for i in named],
    }


def _scores(check: SelfCheck) -> list[list[str]]:
    """Rows of the self-check's table, a hidden slice each; the last row is the mean."""

    def row(name: str, low: float, high: float, ssim_low: float, ssim_high: float) -> list[str]:
        gain = f"{high - low:+.1f}".replace("-", "−")
        return [name, f"{low:.1f}", f"{high:.1f}", gain, f"{ssim_low:.3f}", f"{ssim_high:.3f}"]

    names = [(method, metric) for metric in ("psnr", "ssim") for method in check.figures]
    columns = [check.figures[method][metric] for method, metric in names]
    rows = [
        row(str(number + 1), *figures)
        for number, *figures in zip(check.slices, *columns, strict=True)
    ]
    return [*rows, row("mean", *(check.mean(*name) for name in names))]


def _hidden_slice(check: SelfCheck) -> tuple[Figure, Figure]:
    """The middle one of the hidden slices with the answers, and the errors of these."""
    middle = len(check.slices) // 2
    answers = {name: answer[middle].clip(0, 1) for name, answer in check.answers.items()}
    return example_sheets({"truth": check.truth[middle].clip(0, 1), **answers})


def _measures(volumes: Volumes) -> list[list[str]]:
    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    sparse, dense = volumes.sparse.figures(), volumes.dense.figures()
    return [[TITLES[n], cell(sparse[n]), cell(dense[n])] for n in SHOWN if n in sparse]


def _went_in(stack: SliceStack) -> list[tuple[str, str]]:
    height, width = stack.shape[2:]
    rows, columns = stack.pixel_spacing
    frames, depth = str(stack.n_frames), stack.positions[-1]
    if stack.n_frames > 1 and (step := 1000 * float(np.diff(stack.frame_times).mean())) > 0:
        frames += f", {step:.4g} ms apart"
    return [
        ("slices", f"{stack.n_slices}, gaps of {span(stack.gaps)} mm, {depth:.4g} mm deep"),
        ("slice thickness", f"{stack.thickness:.4g} mm"),
        ("pixels", f"{height} × {width} of {rows:.4g} × {columns:.4g} mm"),
        ("field of view", f"{height * rows:.4g} × {width * columns:.4g} mm"),
        ("frames", frames),
        ("values", f"{stack.data.dtype}, {stack.data.min():.6g} to {stack.data.max():.6g}"),
    ]


def _came_out(report: Report) -> list[tuple[str, str]]:
    volume = report.volume
    count, generated = len(volume.positions), int((~volume.acquired).sum())
    rows = [
        ("slices", f"{count}, {volume.spacing[0]:.4g} mm apart; {generated} generated"),
        ("voxels", " × ".join(f"{step:.4g}" for step in volume.spacing) + " mm"),
        ("acquired slices", "unchanged, bit for bit"),
    ]
    offsets = np.abs(report.record["output"]["acquired_offsets_mm"]).max()
    if offsets > 0:
        place = f"up to {offsets:.2g} mm beside the plane that the file shows them on"
        rows.append(("their places", place))
    return rows
