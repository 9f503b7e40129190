"""What can be asked of reading and of a reconstruction; the same for a stack and for a cohort."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from calid.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calid.io.dicom_write import Headers
    from calid.io.inspect import Inspection
    from calid.stack import SliceStack

__all__ = ["Answer", "Generation", "Reading", "choose_samples"]


@dataclass(frozen=True)
class Answer:
    """What is generated between the slices.

    Parameters
    ----------
    dial
        From 0, the mean, to 1, the crisp answer: the transport's detail comes first,
        then its structure (`calid.inference.model.dialled`). None for the position that the weights
        come with.
    samples
        Draw this many posterior samples and average them, instead of the answer at the dial;
        0 for that answer. The paper's preset only samples.
    steps
        Steps of the transport, or of the sampler of every sample. None for the number that is
        stored with the weights.
    seed
        Seed of the samples' noise.

    Raises
    ------
    UsageError
        If a number is out of range, or a dial is given for samples.
    """

    dial: float | None = None
    samples: int = 0
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("`samples`", self.samples, 0),
            ("`steps`", 1 if self.steps is None else self.steps, 1),
            ("`seed`", self.seed, 0),
        ):
            if not value >= least:
                raise UsageError(name, f"{value} is too small.", f"Use {least} or more.")
        if self.dial is not None and not 0 <= self.dial <= 1:
            raise UsageError(
                "`dial`",
                f"{self.dial} is not a position of the dial.",
                "Use 0 (mean) to 1 (crisp).",
            )
        if self.dial is not None and self.samples:
            raise UsageError(
                "`dial` and `samples`",
                "A sample is as crisp as a real slice: it has no dial.",
                "Give one of the two.",
            )


def choose_samples(samples: int | None, preset: str, uncertainty: bool) -> int:
    """Number of samples to draw.

    Parameters
    ----------
    samples
        Given outright; 0 for the answer at the dial.
    preset
        ``default`` gives the answer at the dial if nothing is said. ``paper`` has none and draws
        one sample.
    uncertainty
        Whether a standard deviation is wanted: 8 samples then, if nothing is said.

    Raises
    ------
    UsageError
        If a standard deviation is wanted of fewer than 2 samples, or no sample of ``paper``.
    """
    if samples == 0 and preset != "default":
        raise UsageError(
            "`samples`",
            f"The preset {preset} has no mean and no dial: it only draws samples.",
            "Draw one or more, or use `preset` default.",
        )
    if samples is None:
        return 8 if uncertainty else int(preset != "default")
    if uncertainty and samples < 2:
        raise UsageError(
            "`uncertainty`",
            f"A standard deviation needs at least 2 samples, not {samples}.",
            "Draw more, 8 for instance.",
        )
    return samples


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the input is read where its header leaves a choice."""

    spacing_from: Literal["auto", "pixdim", "affine"] = "auto"
    """Where the voxel size comes from if the header contradicts
    itself: auto takes pixdim and says so."""
    thickness: float | None = None
    """Slice thickness in mm, for the record. Without, the header's, or slices touch."""
    fill: float | None = None
    """Stored value for voxels that are NaN or infinite. Without, they are an error."""
    odd_slices: Literal["refuse", "leave-out"] = "refuse"
    """DICOM slices that do not fit the others: an error, or left out with a warning."""
    series: tuple[int, ...] = ()
    """DICOM: look at the series of these numbers only; calid
    inspect lists them."""
    max_bytes: int | None = None
    """Voxels that need more memory than this are not read. Without, 4 GiB."""

    def read(self, path: Path) -> SliceStack:
        """Read a stack; see `calid.io.read`."""
        return self.read_with_headers(path)[0]

    def read_with_headers(self, path: Path) -> tuple[SliceStack, Headers | None]:
        """Read a stack, and of DICOM its headers; see `calid.io.read_with_headers`."""
        from calid.io import read_with_headers

        return read_with_headers(
            path,
            thickness=self.thickness,
            fill=self.fill,
            odd_slices=self.odd_slices,
            series=self.series,
            **self._common(),
        )

    def inspect(self, path: Path) -> Inspection:
        """Look at an input without failing; see `calid.io.inspect.inspect_input`."""
        from calid.io.inspect import inspect_input

        return inspect_input(
            path,
            thickness=self.thickness,
            fill=self.fill,
            odd_slices=self.odd_slices,
            series=self.series,
            **self._common(),
        )

    def read_labels(
        self, path: Path, like: SliceStack, label_map: str | None = None
    ) -> NDArray[np.uint8]:
        """Read the labels of a stack that was read with the same options."""
        from calid.io.labels import parse_label_map, read_labels

        return read_labels(path, like, label_map=parse_label_map(label_map), **self._common())

    def facts(self) -> dict[str, Any]:
        """The options that shape the result, for the record."""
        return {
            "spacing_from": self.spacing_from,
            "fill": self.fill,
            "odd_slices": self.odd_slices,
            "series": list(self.series),
        }

    def _common(self) -> dict[str, Any]:
        options: dict[str, Any] = {"spacing_from": self.spacing_from}
        return options if self.max_bytes is None else options | {"max_bytes": self.max_bytes}


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How dense the answer is, and how what lies between the slices is generated."""

    factor: int | None = None
    """Cut the usual gap into this many steps. Without factor or spacing: nearest to isotropic."""
    spacing: float | None = None
    """Wanted through-plane spacing in mm; the nearest that keeps acquired slices in place."""
    dial: float | None = None
    """From 0, the mean, which is nearest to the truth and
    blurred, to 1, about as crisp as a real slice. Without,
    the position that the weights come with."""
    samples: int | None = None
    """Posterior samples to draw and average, instead of the
    answer at the dial. Without: none, or 8 for an
    uncertainty, or one sample of the paper preset."""
    seed: int = 0
    """Of the samples: same seed, same samples."""
    preset: Literal["default", "paper"] = "default"
    """Which released model."""
    weights: Path | None = None
    """Folder with weights of your own, as calid train writes
    them; missing ones (the autoencoder, say) come from the
    package. Without, the released ones."""
    steps: int | None = None
    """Steps of the transport, or of the sampler for samples.
    Without, those that the weights come with."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 is faster where the hardware has it, which auto knows."""
    max_memory: float | None = None
    """GB that may be used at the peak. Without, what is available."""
    frame_by_frame: bool = False
    """Treat every frame of a film as a stack of its own."""

    region: Literal["heart", "whole"] = "heart"
    """Where networks generate: around the heart, if found, with
    registered slices elsewhere, or everywhere. Samples are
    drawn everywhere."""

    fix_shifts: bool = False
    """Move slices back in-plane, by whole pixels, if the heart
    is shifted in them; without, there is only a warning."""

    def answer(self, uncertainty: bool = False) -> Answer:
        """What is generated, with the number of samples decided.

        Parameters
        ----------
        uncertainty
            Whether a standard deviation over samples is wanted.

        Raises
        ------
        UsageError
            If an option is out of range, or options contradict each other.
        """
        from calid.inference.densify import check_density

        check_density(self.factor, self.spacing)
        samples = choose_samples(self.samples, self.preset, uncertainty)
        return Answer(self.dial, samples, self.steps, self.seed)

    def request(self, uncertainty: bool = False) -> dict[str, Any]:
        """What was asked for, by name; equal requests of one release give equal slices.

        ``uncertainty`` is as `answer` has it.
        Device and precision are left out: their results agree within rounding.
        """
        answer = self.answer(uncertainty)
        return {
            "factor": self.factor,
            "spacing_mm": self.spacing,
            "dial": answer.dial,
            "samples": answer.samples,
            "seed": answer.seed,
            "preset": self.preset,
            "steps": answer.steps,
            "frame_by_frame": self.frame_by_frame,
            "region": self.region,
            "fix_shifts": self.fix_shifts,
        }
