"""`calid measure`: volumes, mass and ejection fraction, as the clinic does it and densely."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

import calid
from calid.cli.console import frames_bar, say
from calid.errors import CalidWarning, DataError, OutputError, UsageError
from calid.inference.options import Reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calid.report.measures import Column
    from calid.segmentation.measures import Measurement

__all__ = ["Measure"]

JSON, CSV = "measures.json", "measures.csv"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Measure ventricular volumes, LV mass and ejection fraction.

    Measures twice: from the acquired slices by Simpson's rule, as clinics do, and from the
    dense reconstruction. Both cover the same depth. One frame gives volumes; a film, or a
    pair of end-diastole and end-systole, gives EDV, ESV, SV and EF as well.
    """

    input: Annotated[Path, tyro.conf.Positional]
    """NIfTI stack, or a DICOM folder, zip or file: one frame, or a film."""
    es: Path | None = None
    """End-systole on the same grid; INPUT is then end-diastole."""
    labels: Path | None = None
    """Manual labels of INPUT: 1 RV, 2 myocardium, 3 LV. They
    replace the network's on the acquired slices; the
    reconstruction is still labelled by the network. Frames
    without any label are left out."""
    es_labels: Path | None = None
    """Manual labels of ES."""
    label_map: str | None = None
    """Which values the labels have, if they are others:
    LV=1,MYO=2,RV=3 for M&Ms and UK Biobank."""
    ed_frame: int | None = None
    """End-diastolic frame of a film, counted from 0. Default:
    the frame with the largest left ventricle."""
    es_frame: int | None = None
    """End-systolic frame. Default: the smallest left ventricle."""
    out: Path | None = None
    """Folder for measures.json and measures.csv; made if missing."""
    json: bool = False
    """Print JSON instead of the table."""
    dense: bool = True
    """Also measure a dense reconstruction; otherwise only the acquired slices."""
    device: str = "auto"
    """auto, cpu or cuda."""
    reading: Reading = field(default_factory=Reading)

    def run(self) -> None:
        """Read, measure, print; files are written last, and only if all went well."""
        self._check()
        from importlib.metadata import version

        from calid.io.sidecar import sha256, together, write_json, write_text
        from calid.report.measures import as_csv, as_table
        from calid.weights import weights_path

        columns, weights = self._measure()
        names = ("input", "es", "labels", "es_labels")
        inputs = {name: path for name in names if (path := getattr(self, name)) is not None}
        content = {
            "software": {"name": "calid", "version": version("calid")},
            "notice": "Generated slices are estimates. Research use only; not a medical device.",
            "rule": "Sum of discs (Simpson's rule); both ways cover the same depth.",
            "inputs_sha256": {name: sha256(path) for name, path in inputs.items()},
            "weights_sha256": {name: sha256(weights_path(name)) for name in weights},
            "reading": self.reading.facts(),
            "label_map": self.label_map,
            "measures": {way: column.facts() for way, column in columns.items()},
        }
        if self.out is not None:
            self.out.mkdir(exist_ok=True)
            with together() as write:
                write(self.out / CSV, partial(write_text, as_csv(columns)))
                write(self.out / JSON, partial(write_json, content))
        if self.json:
            say(json.dumps(content, indent=2, sort_keys=True, allow_nan=False))
            return
        for line in as_table(columns, pair=self.es is not None):
            say(line)
        if self.out is not None:
            say(str(self.out / JSON))
            say(str(self.out / CSV))

    def _check(self) -> None:
        """Everything that can be refused before any work is done."""
        from calid.io.atomic import check_output

        if self.es_labels is not None and self.es is None:
            raise UsageError("--es-labels", "There is no end-systole.", "Give --es as well.")
        if self.es is not None and (self.labels is None) != (self.es_labels is None):
            raise UsageError(
                "--labels and --es-labels",
                "A pair is measured with manual labels for both frames or for neither.",
                "Give both or neither.",
            )
        if self.label_map is not None and self.labels is None:
            raise UsageError("--label-map", "There are no labels.", "Give --labels as well.")
        if self.out is not None and self.out.is_dir():
            for name in (JSON, CSV):
                check_output(self.out / name)
        elif self.out is not None and self.out.exists():
            raise OutputError(self.out, "This is a file.", "Give a folder.")
        elif self.out is not None:
            check_output(self.out)  # it will be made, in a folder that is there

    def _read(self) -> tuple[list[calid.SliceStack], list[NDArray[np.uint8]], list[int]]:
        """Stacks, the manual labels of each, if they are given, and the numbers of frames."""
        from calid.io.labels import check_same_grid, missing_labels
        from calid.io.nifti import doubt_reconstruction

        paths = [path for path in (self.input, self.es) if path is not None]
        stacks = [self.reading.read(path) for path in paths]
        for path in paths:
            doubt_reconstruction(path)
        for stack in stacks if self.es is not None else ():
            if stack.n_frames > 1:
                raise UsageError(
                    "--es",
                    f"{stack.source} is a film of {stack.n_frames} frames, not one frame.",
                    "Give the film alone, or two files of one frame each.",
                )
            check_same_grid(stack, stacks[0], stack.source)
        first = stacks[0]
        named = {"--ed-frame": self.ed_frame, "--es-frame": self.es_frame}
        asked = {option: frame for option, frame in named.items() if frame is not None}
        self._check_frames(asked, first.n_frames)
        manual = []
        files = [path for path in (self.labels, self.es_labels) if path is not None]
        for path, stack in zip(files, stacks, strict=False):
            manual.append(self.reading.read_labels(path, stack, self.label_map))
            for note in missing_labels(manual[-1]):
                warnings.warn(f"{path}: {note}", CalidWarning, stacklevel=2)
        frames = list(range(first.n_frames))
        if manual and first.n_frames > 1:
            frames = self._labelled(asked, manual[0])
            times = first.frame_times[frames]
            stacks = [replace(first, data=first.data[frames], frame_times=times)]
            manual = [manual[0][frames]]
        return stacks, manual, frames

    def _check_frames(self, asked: dict[str, int], count: int) -> None:
        """Refuse options that name a frame the film lacks, or the same frame twice."""
        for option, frame in asked.items():
            if count == 1:
                raise UsageError(
                    option,
                    f"{self.input} is one frame, not a film.",
                    "Leave it out; of two files, INPUT is end-diastole and --es end-systole.",
                )
            if not 0 <= frame < count:
                raise UsageError(
                    f"{option} {frame}",
                    f"The film has {count} frames.",
                    f"Give a number from 0 to {count - 1}.",
                )
        if len(asked) > len({*asked.values()}):
            raise UsageError(
                "--ed-frame and --es-frame",
                "One frame cannot be both.",
                "Give two frames, or leave one of them to be found.",
            )

    def _labelled(self, asked: dict[str, int], labels: Iterable[NDArray[np.uint8]]) -> list[int]:
        """Frames of a film that have labels; those that are asked for must be among them."""
        given = [bool(frame.any()) for frame in labels]
        frames = [number for number, labelled in enumerate(given) if labelled]
        for option, frame in asked.items():
            if frame not in frames:
                raise DataError(
                    self.labels,
                    f"Frame {frame} of {option} has no label; those that have one are {frames}.",
                    "Name a labelled frame, or leave the option out.",
                )
        if not frames:
            raise DataError(self.labels, "No voxel is labelled.", "Check the file.")
        if len(frames) < len(given):
            shown = ", ".join(map(str, frames[:8])) + ", …" * (len(frames) > 8)
            warnings.warn(
                f"{self.labels}: {len(frames)} of {len(given)} frames have labels and are "
                f"measured: {shown} (counted from 0).",
                CalidWarning,
                stacklevel=2,
            )
        return frames

    def _measure(self) -> tuple[dict[str, Column], list[str]]:
        """The sparse column and, if asked for, the dense one; and the names of all weights used."""
        from calid.report.measures import measured_densely
        from calid.segmentation.measures import cavity_volumes
        from calid.segmentation.segment import load_segmenter

        stacks, manual, numbers = self._read()
        segmenter = load_segmenter(self.device) if self.dense or not manual else None
        model = calid.load_model(device=self.device) if self.dense else None
        # Without samples: a measurement is the same every time, and needs one pass.
        wanted = calid.Generation(samples=0)
        n_frames, passes = stacks[0].n_frames, (not manual) + 2 * self.dense
        sparse: list[Measurement] = []
        dense: list[Measurement] = []
        with frames_bar(len(stacks) * passes * n_frames, "measuring") as on_frame:
            parts = (
                lambda frame, before=before: on_frame(before + frame)
                for before in range(0, len(stacks) * passes * n_frames, n_frames)
            )
            for number, stack in enumerate(stacks):
                source: object = stack.source
                if manual:
                    source, labels = (self.labels, self.es_labels)[number], manual[number]
                elif segmenter is not None:
                    labels = segmenter.label_volume(stack, next(parts))
                sparse += cavity_volumes(
                    labels, stack.positions, stack.pixel_spacing, source=source
                )
                if model is not None and segmenter is not None:
                    volume = calid.reconstruct(stack, wanted, model=model, on_frame=next(parts))
                    dense += measured_densely(stack, volume, segmenter, next(parts))
                    places = volume.positions
        kind = "manual" if manual else "network"
        columns = {"sparse": self._column(kind, sparse, numbers, stacks[0].positions)}
        if model is None:
            return columns, ["segmentation"] if segmenter else []
        columns["dense"] = self._column("network", dense, numbers, places)
        return columns, ["segmentation", "autoencoder", model.preset]

    def _column(
        self,
        labels: str,
        frames: Sequence[Measurement],
        numbers: Sequence[int],
        positions: NDArray[np.float64],
    ) -> Column:
        """Figures of one way of measuring; ``numbers`` are those of the frames in the film."""
        from calid.report.measures import Column
        from calid.segmentation.measures import heart_function

        function = None
        if self.es is not None:
            function = heart_function(frames, 0, 1)
        elif len(frames) > 1:
            named = (self.ed_frame, self.es_frame)
            places = [None if n is None else numbers.index(n) for n in named]
            function = heart_function(frames, *places)
            ed, es = numbers[function.ed_frame], numbers[function.es_frame]
            function = replace(function, ed_frame=ed, es_frame=es)
        if function and not function.lv.sv_ml > 0:
            warnings.warn(
                "The left ventricle is not smaller at end-systole. Are the two swapped?",
                CalidWarning,
                stacklevel=2,
            )
        gap = float(positions[-1] - positions[0]) / (len(positions) - 1)
        return Column(labels, len(positions), gap, frames, function)
