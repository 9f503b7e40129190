"""How a volume was made: enough to trust it and to make it again."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from calid.geometry.dense_grid import offsets
from calid.inference.model import Model
from calid.inference.options import Answer, Reading
from calid.io.sidecar import sha256
from calid.runtime import precision_name
from calid.stack import SliceStack, Volume
from calid.weights import weights_path

__all__ = ["record", "run_record"]


def record(stack: SliceStack, volume: Volume, model: Model, answer: Answer) -> dict[str, Any]:
    """What went in, what came out, and how.

    Only what is listed here is written: no file name, no header text, nothing that could
    name a patient.
    """
    files = dict(model.weights)
    if volume.region is not None:
        files["segmentation"] = weights_path("segmentation")  # found the heart
    beside = offsets(volume.positions, volume.affine, stack.affine)
    return {
        "software": {"name": "calid", "version": version("calid")},
        "notice": "Generated slices are estimates. Research use only; not a medical device.",
        "input": {
            "shape": list(stack.shape),
            "pixel_spacing_mm": list(stack.pixel_spacing),
            "slice_positions_mm": stack.positions.tolist(),
            "slice_thickness_mm": stack.thickness,
            "resampled_slices": [
                {"slice": number, "frames": frames} for number, frames in stack.resampled.items()
            ],
        },
        "output": {
            "shape": list(volume.data.shape),
            "spacing_mm": list(volume.spacing),
            "slice_positions_mm": volume.positions.tolist(),
            "acquired_slices": volume.acquired.nonzero()[0].tolist(),
            "generated_slices": (~volume.acquired).nonzero()[0].tolist(),
            "region": volume.region and dict(zip(("rows", "columns"), volume.region, strict=True)),
            # Where an acquired slice truly is, seen from the plane that the file shows it on.
            "acquired_offsets_mm": beside[volume.acquired].round(6).tolist(),
        },
        "settings": {
            "preset": model.preset,
            "dial": answer.dial,
            "samples": answer.samples,
            "steps": answer.steps,
            "seed": answer.seed,
            "frames_together": volume.frames_together,
            "device": str(model.device),
            "precision": precision_name(model.runtime.precision),
        },
        "weights_sha256": {name: sha256(path) for name, path in files.items()},
    }


def run_record(
    volume: Volume, source: Path, reading: Reading, seconds: dict[str, float]
) -> dict[str, Any]:
    """The same of a run on a file: with its hash, how it was read, and how long things took."""
    facts = dict(volume.provenance)
    facts["input"] = {"sha256": sha256(source)} | facts["input"]
    facts["reading"] = reading.facts()
    facts["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    return facts
