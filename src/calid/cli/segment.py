"""`calid segment`: a stack in, its labels out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import tyro

from calid.cli.console import frames_bar, say
from calid.inference.options import Reading

__all__ = ["Segment"]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Label both ventricles and the left myocardium of a short-axis stack.

    Works on acquired stacks and on reconstructions. Labels are 1 for the RV cavity, 2 for the
    LV myocardium, 3 for the LV cavity and 0 for everything else. A JSON file beside the output
    says how it was made.
    """

    input: Annotated[Path, tyro.conf.Positional]
    """NIfTI stack (3D, or 4D with one volume per frame), or a DICOM folder, zip or file."""
    output: Annotated[Path, tyro.conf.Positional]
    """NIfTI labels to write, on the input's grid. OUTPUT.json is written beside it."""
    device: str = "auto"
    """auto, cpu or cuda."""
    reading: Reading = field(default_factory=Reading)

    def run(self) -> None:
        """Read, label, write; nothing is written unless all of it can be."""
        from calid.io.atomic import check_output
        from calid.io.labels import CLASSES, write_labels
        from calid.io.nifti import SUFFIXES
        from calid.io.sidecar import check_sidecar, sha256, together, write_json

        check_output(self.output, [self.input], SUFFIXES)
        check_sidecar(self.sidecar, [self.input])
        # After the checks, which need no torch.
        from calid.runtime import precision_name
        from calid.segmentation.segment import load_segmenter
        from calid.weights import weights_path

        stack = self.reading.read(self.input)
        segmenter = load_segmenter(self.device)
        started = time.perf_counter()
        with frames_bar(stack.n_frames, "labelling") as on_frame:
            labels = segmenter.label_volume(stack, on_frame)
        # As beside a reconstruction: no file name, nothing that could name a patient.
        record = {
            "software": {"name": "calid", "version": version("calid")},
            "notice": "Labels are a network's. Research use only; not a medical device.",
            "input": {
                "sha256": sha256(self.input),
                "shape": list(stack.shape),
                "pixel_spacing_mm": list(stack.pixel_spacing),
                "slice_positions_mm": stack.positions.tolist(),
            },
            "labels": {"background": 0} | dict(CLASSES),
            "settings": {
                "device": str(segmenter.device),
                "precision": precision_name(segmenter.runtime.precision),
            },
            "reading": self.reading.facts(),
            "weights_sha256": {"segmentation": sha256(weights_path("segmentation"))},
            "seconds": {"segment": round(time.perf_counter() - started, 3)},
        }
        with together() as write:
            files = {"output": write(self.output, partial(write_labels, labels, stack))}
            # Last: a record that fits its output says that the run came to its end.
            write(self.sidecar, partial(write_json, record | {"files_sha256": files}))
        say(str(self.output))
        say(str(self.sidecar))

    @property
    def sidecar(self) -> Path:
        """The JSON file beside the output."""
        from calid.io.sidecar import sidecar_of

        return sidecar_of(self.output)
