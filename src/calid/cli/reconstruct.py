"""`calid reconstruct`: a sparse stack in, a dense volume out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from calid.inference.settings import Generation

__all__ = ["Reconstruct"]

PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Generation):
    """Reconstruct a dense volume from a sparse short-axis stack.

    Acquired slices stay as they are, bit for bit; the slices between them are generated.
    A JSON file beside the output says which is which and how to make it again.
    """

    input: Annotated[Path, tyro.conf.Positional]
    """NIfTI stack: 3D, or 4D with one volume per frame."""
    output: Annotated[Path, tyro.conf.Positional]
    """NIfTI volume to write (.nii or .nii.gz). OUTPUT.json is written beside it."""
    uncertainty: Path | None = None
    """NIfTI file for the standard deviation over samples, in image units."""
    figure: Path | None = None
    """Picture to write: as acquired, linear and CaLID in three planes."""

    def run(self) -> None:
        """Read, generate, write; nothing is written unless all of it can be."""
        self._check()
        from calid.cli.console import frames_bar, say
        from calid.inference.model import Sampling, load_model
        from calid.inference.reconstruct import choose_samples
        from calid.inference.sidecar import record
        from calid.io import read, write_uncertainty, write_volume
        from calid.io.sidecar import write_json

        samples = choose_samples(self.samples, self.preset, self.uncertainty is not None)
        started = time.perf_counter()
        stack = read(self.input)
        sampling = Sampling(samples, self.steps, self.temperature, self.seed)
        loading = time.perf_counter()
        model = load_model(self.preset, self.device)
        loaded = time.perf_counter()
        with frames_bar(stack.n_frames) as on_frame:
            volume = model.reconstruct(
                stack,
                factor=self.factor,
                spacing=self.spacing,
                samples=samples,
                steps=self.steps,
                temperature=self.temperature,
                seed=self.seed,
                uncertainty=self.uncertainty is not None,
                on_frame=on_frame,
            )
        done = time.perf_counter()
        write_volume(volume, self.output)
        if self.uncertainty is not None:
            write_uncertainty(volume, self.uncertainty)
        if self.figure is not None:
            from calid.report.figure import comparison, save_figure

            save_figure(comparison(stack, volume), self.figure)
        seconds = {
            "read": loading - started,
            "load_model": loaded - loading,
            "reconstruct": done - loaded,
        }
        write_json(record(self.input, stack, volume, model, sampling, seconds), self.sidecar)
        through = volume.spacing[0]
        say(
            f"{stack.n_slices} slices {stack.gaps.mean():.4g} mm apart are now "
            f"{len(volume.positions)}, {through:.3g} mm apart"
            f" ({(~volume.acquired).sum()} generated)."
        )
        for path in (self.output, self.sidecar, self.uncertainty, self.figure):
            if path is not None:
                say(str(path))

    @property
    def sidecar(self) -> Path:
        """The JSON file beside the output."""
        from calid.io.sidecar import sidecar_of

        return sidecar_of(self.output)

    def _check(self) -> None:
        """Everything that can be refused before any work is done."""
        from calid.io.atomic import check_output
        from calid.io.nifti_write import SUFFIXES

        check_output(self.output, [self.input], SUFFIXES)
        check_output(self.sidecar, [self.input])
        if self.uncertainty is not None:
            check_output(self.uncertainty, [self.input, self.output], SUFFIXES)
        if self.figure is not None:
            check_output(self.figure, [self.input, self.output], PICTURES)
