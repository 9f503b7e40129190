"""`calid reconstruct`: a sparse stack in, a dense volume out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["Reconstruct"]

PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """Reconstruct a dense volume from a sparse short-axis stack.

    Acquired slices stay as they are, bit for bit; the slices between them are generated.
    A JSON file beside the output says which is which and how to make it again.
    """

    input: Annotated[Path, tyro.conf.Positional]
    """NIfTI stack: 3D, or 4D with one volume per frame."""
    output: Annotated[Path, tyro.conf.Positional]
    """NIfTI volume to write (.nii or .nii.gz). OUTPUT.json is written beside it."""
    factor: int | None = None
    """Cut every gap into this many steps. Without factor or spacing: nearest to isotropic."""
    spacing: float | None = None
    """Wanted through-plane spacing in mm; the nearest that keeps acquired slices in place."""
    samples: int | None = None
    """Samples to draw and average; 0 is the conditional mean in one pass (default preset).
    Without: the mean, or 8 for an uncertainty, or one sample of the paper preset."""
    uncertainty: Path | None = None
    """NIfTI file for the standard deviation over samples, in image units."""
    seed: int = 0
    """Same seed, same result."""
    preset: Literal["default", "paper"] = "default"
    """Which released model."""
    steps: int | None = None
    """Sampler steps. Without, the preset's own."""
    temperature: float = 1.0
    """Scale of the starting noise; below 1 samples vary less."""
    device: str = "auto"
    """auto, cpu or cuda."""
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
        from calid.io.together import together

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
        seconds = {
            "read": loading - started,
            "load_model": loaded - loading,
            "reconstruct": done - loaded,
        }
        content = record(self.input, stack, volume, model, sampling, seconds)
        with together() as write:
            files = {"output": write(self.output, partial(write_volume, volume))}
            if self.uncertainty is not None:
                wanted = partial(write_uncertainty, volume)
                files["uncertainty"] = write(self.uncertainty, wanted)
            if self.figure is not None:
                from calid.report.figure import comparison, save_figure

                picture = partial(save_figure, comparison(stack, volume))
                files["figure"] = write(self.figure, picture)
            # Last: a record that fits its output says that the run came to its end.
            write(self.sidecar, partial(write_json, content | {"files_sha256": files}))
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
