"""One page about one reconstruction, to look at before it is used and to send to a colleague."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from calid.geometry.grid import PIXEL_SPACING
from calid.io.sidecar import write_text
from calid.report.examples import example_sheets
from calid.report.figure import comparison
from calid.report.markup import command, facts, paragraph, picture, section, table
from calid.report.measures import TITLES
from calid.report.ruler import ruler
from calid.report.selfcheck import OURS, SelfCheck
from calid.report.spread import spread_figure
from calid.report.volumes import Volumes
from calid.segmentation.measures import Function
from calid.stack import SliceStack, Volume
from calid.words import span

__all__ = ["Report", "page", "write_page"]

LEVEL = 0.1
"""dB within which two methods are called level."""


@dataclass(frozen=True, eq=False)
class Report:
    """All that a page shows. None of it may name a patient or a file: it is shown as it is.

    Parameters
    ----------
    stack, volume
        What went in and what came out.
    record
        As `calid.inference.record.record` gives it.
    files
        What was written to its SHA-256.
    command
        Makes the volume again.
    warnings
        Of the run.
    check, volumes
        What was found, or why there is nothing.
    """

    stack: SliceStack
    volume: Volume
    record: Mapping[str, Any]
    files: Mapping[str, str]
    command: str
    warnings: Sequence[str]
    check: SelfCheck | str
    volumes: Volumes | str


def write_page(report: Report, path: Path) -> None:
    """Write the page, complete or not at all.

    Raises
    ------
    OutputError
        If it cannot be written there; an older file is then unchanged.
    """
    write_text(page(report), path)


def page(report: Report) -> str:
    """The page: one HTML text without scripts that opens from disk and requests nothing."""
    style = _file("page.css")
    stack, volume = report.stack, report.volume
    parts = {
        "style": style,
        "style_hash": f"'sha256-{_base64_hash(style)}'",
        "title": escape(
            f"{stack.n_slices} slices {span(stack.gaps)} mm apart became "
            f"{len(volume.positions)}, {volume.spacing[0]:.3g} mm apart"
        ),
        "version": escape(str(report.record["software"]["version"])),
        "sections": "\n".join(_sections(report)),
    }
    # One pass, so that nothing that is put in is looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("page.html"))


def _sections(report: Report) -> list[str]:
    sections = [
        _warnings(report.warnings),
        _before_and_after(report),
        _where(report.volume),
        _check(report.check, report.stack),
    ]
    if report.volume.uncertainty is not None:
        sections.append(_uncertainty(report.volume))
    return [*sections, _volumes(report.volumes), _geometry(report), _again(report)]


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return section("Warnings", paragraph("None.", "quiet"))
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return section("Warnings", f'<ul class="warnings">{items}</ul>')


def _before_and_after(report: Report) -> str:
    film = "The first frame. " if report.stack.n_frames > 1 else ""
    caption = (
        f"{film}Left to right: the slices as acquired, each as thick as its distance to the next; "
        "linear interpolation; CaLID. Top: a short-axis slice midway between two acquired ones. "
        "Below: two cuts across the slices, in true proportions."
    )
    words = "As acquired, linear interpolation and CaLID side by side in three planes."
    return section(
        "Before and after", picture(comparison(report.stack, report.volume), words, caption)
    )


def _where(volume: Volume) -> str:
    real = int(volume.acquired.sum())
    key = (
        f'<p class="keys"><span><i class="key acquired"></i>{real} acquired</span>'
        f'<span><i class="key generated"></i>{len(volume.positions) - real} generated</span></p>'
    )
    text = (
        "Millimetres from the first slice. Acquired slices are copied bit for bit; all others are "
        "estimates."
    )
    if volume.region is not None:
        (top, bottom), (left, right) = volume.region
        text += (
            f" In these the networks answer for rows {top} to {bottom - 1} and columns {left} to "
            f"{right - 1}, counted from 0, around the heart; the rest is the acquired slices on "
            "either side, registered."
        )
    return section("Acquired and generated slices", key, ruler(volume), paragraph(text, "quiet"))


def _check(check: SelfCheck | str, stack: SliceStack) -> str:
    title = "Self-check on this stack"
    if isinstance(check, str):
        return section(title, paragraph(f"Not done. {check}", "quiet"))
    first = " of the first frame" if stack.n_frames > 1 else ""
    many = len(check.slices)
    height, width = (n * PIXEL_SPACING for n in check.truth.shape[1:])
    method = (
        f"Every second slice{first} was hidden, generated from the others with the settings of "
        f"this run, and compared with the true one ({many} in all; {height:.0f} x {width:.0f} mm "
        f"of it, in pixels of {PIXEL_SPACING:g} mm). Hiding opens gaps of {span(check.gaps)} mm, "
        "wider than those that the reconstruction fills: its own slices should be nearer to the "
        "truth than these."
    )
    middle = many // 2
    shown = {name: np.clip(answer[middle], 0, 1) for name, answer in check.answers.items()}
    images, errors = example_sheets(np.clip(check.truth[middle], 0, 1), shown)
    caption = f"Slice {check.slices[middle] + 1}, hidden and generated."
    signs = "The errors: red is too bright, blue too dark."
    return section(
        title,
        _verdict(check.gain),
        paragraph(method),
        _check_table(check),
        paragraph(
            "PSNR (in dB) and SSIM are larger for images nearer to the truth. A smooth image can "
            "score high; whether detail is right, the picture tells better.",
            "quiet",
        ),
        picture(images, "A hidden slice, linear interpolation, CaLID.", caption, "narrow"),
        picture(errors, "The errors of both.", signs, "narrow"),
    )


def _verdict(gain: float) -> str:
    if gain > LEVEL:
        return paragraph(f"On your data CaLID is {gain:+.1f} dB above linear.", "verdict good")
    if gain < -LEVEL:
        return paragraph(
            f"On your data CaLID is {-gain:.1f} dB below linear: look before you use it.",
            "verdict poor",
        )
    return paragraph("On your data CaLID and linear are level.", "verdict")


def _check_table(check: SelfCheck) -> str:
    def cells(figures: Sequence[float]) -> list[str]:
        low, high, ssim_low, ssim_high = figures
        gain = f"{high - low:+.1f}".replace("-", "−")
        return [f"{low:.1f}", f"{high:.1f}", gain, f"{ssim_low:.3f}", f"{ssim_high:.3f}"]

    names = [(method, metric) for metric in ("psnr", "ssim") for method in ("linear", OURS)]
    columns = [check.figures[method][metric] for method, metric in names]
    rows = [
        [str(number + 1), *cells([column[i] for column in columns])]
        for i, number in enumerate(check.slices)
    ]
    mean = ["mean", *cells([check.mean(*name) for name in names])]
    head = ["slice", "PSNR linear", "PSNR CaLID", "gain", "SSIM linear", "SSIM CaLID"]
    return table(head, rows, mean)


def _uncertainty(volume: Volume) -> str:
    film = " of the first frame" if volume.data.shape[0] > 1 else ""
    caption = (
        f"Standard deviation over samples{film}, in image units; black where slices are acquired. "
        "It is how much the model's answers differ, not how far they are from the truth."
    )
    words = "Map of the standard deviation over samples in three planes."
    return section("Uncertainty", picture(spread_figure(volume), words, caption))


SHOWN = (
    *("lv_edv_ml", "lv_esv_ml", "lv_ef_percent", "rv_edv_ml", "rv_esv_ml", "rv_ef_percent"),
    *("ed_mass_g", "lv_ml", "rv_ml", "mass_g"),
)
"""Volumes in a report, as far as there are any."""


def _volumes(volumes: Volumes | str) -> str:
    title = "Ventricular volumes"
    if isinstance(volumes, str):
        return section(title, paragraph(f"Not measured. {volumes}", "quiet"))
    sparse, dense = volumes.sparse.figures(), volumes.dense.figures()

    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    rows = [
        [TITLES[name], cell(sparse[name]), cell(dense[name])] for name in SHOWN if name in sparse
    ]
    frames = ""
    if isinstance(volumes.sparse, Function):
        frames = (
            f" End-diastole is frame {volumes.sparse.ed_frame + 1}, end-systole frame "
            f"{volumes.sparse.es_frame + 1}, as the acquired slices have it."
        )
    text = (
        "Simpson's rule takes every acquired slice for a slab that is as thick as slices are "
        "apart. The dense column sums many thin slabs over the same depth, so it follows the heart "
        "as it tapers; its slices are estimates, and neither column is the truth. Labels are those "
        f"of the package's network, checked by no one.{frames}"
    )
    return section(
        title, table(["", "acquired (Simpson)", "dense"], rows), paragraph(text, "quiet")
    )


def _geometry(report: Report) -> str:
    stack, volume = report.stack, report.volume
    height, width = stack.shape[2:]
    rows, columns = stack.pixel_spacing
    through = volume.spacing[0]
    went_in = [
        (
            "slices",
            f"{stack.n_slices}, gaps of {span(stack.gaps)} mm, {stack.positions[-1]:.4g} mm deep",
        ),
        ("slice thickness", f"{stack.thickness:.4g} mm"),
        ("pixels", f"{height} × {width} of {rows:.4g} × {columns:.4g} mm"),
        ("field of view", f"{height * rows:.4g} × {width * columns:.4g} mm"),
        ("frames", _frames(stack)),
        ("values", f"{stack.data.dtype}, {stack.data.min():.6g} to {stack.data.max():.6g}"),
    ]
    offsets = np.abs(report.record["output"]["acquired_offsets_mm"]).max()
    generated = int((~volume.acquired).sum())
    came_out = [
        ("slices", f"{len(volume.positions)}, {through:.4g} mm apart; {generated} generated"),
        ("voxels", " × ".join(f"{step:.4g}" for step in volume.spacing) + " mm"),
        ("acquired slices", "unchanged, bit for bit"),
    ]
    if offsets > 0:
        place = f"up to {offsets:.2g} mm beside the plane that the file shows them on"
        came_out.append(("their places", place))
    return section("Geometry", "<h3>In</h3>", facts(went_in), "<h3>Out</h3>", facts(came_out))


def _frames(stack: SliceStack) -> str:
    if stack.n_frames == 1:
        return "1"
    step = 1000 * float(np.diff(stack.frame_times).mean())
    return f"{stack.n_frames}, {step:.4g} ms apart" if step > 0 else str(stack.n_frames)


def _again(report: Report) -> str:
    record = report.record
    settings = [(name, str(value)) for name, value in record["settings"].items()]
    seconds = ", ".join(
        f"{name.replace('_', ' ')} {value:.1f} s" for name, value in record["seconds"].items()
    )
    hashes = [
        ("input", record["input"]["sha256"]),
        *report.files.items(),
        *((f"weights: {name}", value) for name, value in record["weights_sha256"].items()),
    ]
    return section(
        "To make it again",
        command(report.command),
        paragraph(
            "Words in capitals stand for paths, which this page does not tell. The same version on "
            "the same kind of device gives the same voxels.",
            "quiet",
        ),
        "<h3>Settings</h3>",
        facts([("software", f"calid {record['software']['version']}"), *settings]),
        "<h3>SHA-256</h3>",
        facts(hashes, "hash"),
        paragraph(f"Time: {seconds}.", "quiet"),
    )


def _file(name: str) -> str:
    return resources.files("calid.report").joinpath(name).read_text(encoding="utf-8")


def _base64_hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
