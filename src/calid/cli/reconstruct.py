"""`calid reconstruct`: a sparse stack in, a dense volume out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Reconstruct"]

PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """Reconstruct a dense volume from a sparse short-axis stack.

    Acquired slices stay as they are, bit for bit; the slices between them are generated.
    A JSON file beside the output says which is which and how to make it again.
    """

    input: Annotated[Path, tyro.conf.Positional]
    """NIfTI stack (3D, or 4D with one volume per frame), or a DICOM folder, zip or file."""
    output: Annotated[Path, tyro.conf.Positional]
    """NIfTI volume to write (.nii or .nii.gz). OUTPUT.json is written beside it."""
    factor: int | None = None
    """Cut the usual gap into this many steps. Without factor or spacing: nearest to isotropic."""
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
    odd_slices: Literal["refuse", "leave-out"] = "refuse"
    """DICOM slices that do not fit the others: an error, or left out with a warning."""
    runtime: Literal["auto", "torch", "openvino"] = "auto"
    """What computes the networks; openvino is for CPUs and needs calid[openvino]."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 is faster where the hardware has it, which auto knows."""
    max_memory: float | None = None
    """GB that may be used at the peak. Without, what is available."""
    figure: Path | None = None
    """Picture to write: as acquired, linear and CaLID in three planes."""
    dicom: Path | None = None
    """New folder for a derived DICOM series: one file per slice and frame.
    Of a DICOM input it joins the study, patient's name and ID included; else it is anonymous."""

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
        stack = read(self.input, odd_slices=self.odd_slices)
        sampling = Sampling(samples, self.steps, self.temperature, self.seed)
        loading = time.perf_counter()
        model = load_model(self.preset, self.device, self.runtime, self.precision)
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
                max_memory=self.max_memory,
                on_frame=on_frame,
            )
        done = time.perf_counter()
        write_volume(volume, self.output)
        if self.uncertainty is not None:
            write_uncertainty(volume, self.uncertainty)
        if self.figure is not None:
            from calid.report.figure import comparison, save_figure

            save_figure(comparison(stack, volume), self.figure)
        if self.dicom is not None:
            from calid.io.dicom_write import write_dicom

            write_dicom(volume, self.dicom, thickness=stack.thickness)
        seconds = {
            "read": loading - started,
            "load_model": loaded - loading,
            "reconstruct": done - loaded,
        }
        write_json(record(self.input, stack, volume, model, sampling, seconds), self.sidecar)
        through = volume.spacing[0]
        say(
            f"{stack.n_slices} slices {_range(stack.gaps)} mm apart are now "
            f"{len(volume.positions)}, {through:.3g} mm apart"
            f" ({(~volume.acquired).sum()} generated)."
        )
        for path in (self.output, self.sidecar, self.uncertainty, self.figure, self.dicom):
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
        if self.dicom is not None:
            from calid.io.atomic_folder import check_new_folder

            others = (self.output, self.sidecar, self.uncertainty, self.figure)
            check_new_folder(self.dicom, [self.input], [path for path in others if path])


def _range(gaps: NDArray[np.float64]) -> str:
    """``10``, or ``10 to 20`` of unequal gaps."""
    least, most = f"{gaps.min():.4g}", f"{gaps.max():.4g}"
    return least if least == most else f"{least} to {most}"
