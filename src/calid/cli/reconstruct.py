"""`calid reconstruct`: a sparse stack in, a dense volume out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

import calid
from calid.cli.console import as_options, frames_bar, say
from calid.cli.report import again, examined, warnings_noted, without_paths
from calid.errors import CalidWarning
from calid.inference.options import Generation, Reading
from calid.words import span

__all__ = ["Reconstruct"]


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Generation):
    """Reconstruct a dense volume from a sparse short-axis stack.

    Acquired slices stay as they are, bit for bit (--fix-shifts moves some by whole pixels); the
    slices between them are generated.
    A JSON file beside the output says which is which and how to make it again.
    """

    input: Annotated[Path, tyro.conf.Positional]
    """NIfTI stack (3D, or 4D with one volume per frame), or a DICOM folder, zip or file."""
    output: Annotated[Path, tyro.conf.Positional]
    """NIfTI volume to write (.nii or .nii.gz). OUTPUT.json is written beside it."""
    uncertainty: Path | None = None
    """NIfTI file for the standard deviation over samples, in image units."""
    figure: Path | None = None
    """Picture to write: as acquired, linear and CaLID. Of a film, .gif shows the beating heart."""
    report: Path | None = None
    """HTML page about the reconstruction that loads nothing and
    names no one: pictures, a self-check on the stack's own
    slices, volumes, warnings, and how to make it again."""
    dicom: Path | None = None
    """New folder for a derived DICOM series: one file per slice
    and frame. For DICOM input it joins the study, with the
    patient's name and ID; otherwise it is anonymous."""
    reading: Reading = field(default_factory=Reading)

    def run(self) -> None:
        """Read, generate, write; nothing is written unless all of it can be."""
        self._check()
        with warnings_noted() as notes:
            self._reconstruct(notes)

    def _reconstruct(self, notes: list[str]) -> None:
        from calid.inference.record import run_record
        from calid.io.nifti import refuse_reconstruction
        from calid.io.sidecar import together, write_json

        spread = self.uncertainty is not None
        self.answer(spread)  # refuses what cannot be asked, before any work
        started = time.perf_counter()
        refuse_reconstruction(self.input)
        stack, headers = self.reading.read_with_headers(self.input)
        if self.figure is not None:
            from calid.report.film import check_animation, picture_of

            check_animation(self.figure, stack)
        loading = time.perf_counter()
        model = calid.load_model(self.preset, self.device, self.precision, self.weights)
        loaded = time.perf_counter()
        with frames_bar(stack.n_frames) as on_frame:
            volume = calid.reconstruct(
                stack, self, model=model, uncertainty=spread, on_frame=on_frame
            )
        done = time.perf_counter()
        # As it went in, with slices moved back if that was asked for.
        stack = replace(stack, data=volume.data[:, volume.acquired])
        if self.spacing is not None and volume.acquired.all():
            warnings.warn(
                f"{self.input}: its slices are as dense as {self.spacing:g} mm already: none are "
                "generated.",
                CalidWarning,
                stacklevel=2,
            )
        seconds = {
            "read": loading - started,
            "load_model": loaded - loading,
            "reconstruct": done - loaded,
        }
        content = run_record(volume, self.input, self.reading, seconds)
        page = None if self.report is None else self._page(stack, volume, model, content)
        with together() as write:
            files = {"output": write(self.output, partial(calid.write_volume, volume))}
            if self.uncertainty is not None:
                wanted = partial(calid.write_uncertainty, volume)
                files["uncertainty"] = write(self.uncertainty, wanted)
            if self.figure is not None:
                picture = picture_of(stack, volume, self.figure.suffix)
                files["figure"] = write(self.figure, picture)
            if self.dicom is not None:
                from calid.io.dicom_write import write_dicom

                write_dicom(volume, self.dicom, headers, thickness=stack.thickness)
            if self.report is not None and page is not None:
                # After all that may warn.
                files["report"] = write(self.report, partial(page, dict(files), notes))
            # Last: a record that fits its output says that the run came to its end.
            write(self.sidecar, partial(write_json, content | {"files_sha256": files}))
        say(
            f"{stack.n_slices} slices {span(stack.gaps)} mm apart are now "
            f"{len(volume.positions)}, {volume.spacing[0]:.3g} mm apart "
            f"({(~volume.acquired).sum()} generated)."
        )
        beside = (self.uncertainty, self.figure, self.report, self.dicom)
        for path in (self.output, self.sidecar, *beside):
            if path is not None:
                say(str(path))

    def _page(
        self,
        stack: calid.SliceStack,
        volume: calid.Volume,
        model: calid.Model,
        content: dict[str, Any],
    ) -> Callable[[dict[str, str], list[str], Path], None]:
        """Compute everything a report needs, and return a function that writes it.

        The function takes the hashes of files already written, the warnings, and the page's path.
        """
        from calid.report.page import Report, write_page

        spread = self.uncertainty is not None
        with frames_bar(2, "checking") as on_part:
            check, volumes = examined(stack, volume, model, self.answer(spread), on_part)
        command = again(self, self.reading, content["settings"], spread)
        names = ("input", "output", "uncertainty", "figure", "report", "dicom", "weights")
        paths = {name.upper(): path for name in names if (path := getattr(self, name)) is not None}

        def write(files: dict[str, str], notes: list[str], path: Path) -> None:
            clean = [without_paths(as_options(note), paths) for note in notes]
            write_page(Report(stack, volume, content, files, command, clean, check, volumes), path)

        return write

    @property
    def sidecar(self) -> Path:
        """The JSON file beside the output."""
        from calid.io.sidecar import sidecar_of

        return sidecar_of(self.output)

    def _check(self) -> None:
        """Everything that can be refused before any work is done."""
        from calid.io.atomic import check_distinct, check_new_folder, check_output
        from calid.io.nifti import SUFFIXES
        from calid.io.sidecar import check_sidecar

        check_output(self.output, [self.input], SUFFIXES)
        given = (
            (self.output, SUFFIXES),
            (self.uncertainty, SUFFIXES),
            (self.figure, (".png", ".pdf", ".svg", ".gif")),
            (self.report, (".html", ".htm")),
        )
        outputs = [(path, endings) for path, endings in given if path is not None]
        files = [self.sidecar, *(path for path, _ in outputs)]
        check_distinct(files)
        check_sidecar(self.sidecar, [self.input])
        for path, endings in outputs:
            check_output(path, [self.input], endings)
        if self.dicom is not None:
            check_new_folder(self.dicom, [self.input], files)
