from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sampled_volume import sampled_volume

from calid.baselines.rules import linear
from calid.geometry.affine import from_spacing
from calid.io import write_uncertainty, write_volume
from calid.io.labels import write_labels
from calid.io.sidecar import sha256, sidecar_of, write_json
from calid.stack import SliceStack, Volume
from calid.view.scene import as_stack

FACTOR = 5


@dataclass(frozen=True)
class Files:
    """A sparse film, a volume made of it, and what is laid over it."""

    sparse: Path
    dense: Path
    labels: Path
    uncertainty: Path

    def arguments(self) -> list[str]:
        return [
            *("--sparse", str(self.sparse), str(self.dense)),
            *("--labels", str(self.labels), "--uncertainty", str(self.uncertainty)),
        ]


def film(frames: int = 3, slices: int = 4, height: int = 40, width: int = 36) -> SliceStack:
    """A bright disc that shrinks from frame to frame and from slice to slice."""
    rows, columns = np.mgrid[:height, :width]
    away = np.hypot(rows - height / 2, columns - width / 2)
    radius = 14 - 3 * np.arange(frames)[:, None] - 1.5 * np.arange(slices)
    data = 100 + 600 * (away < radius[..., None, None]) + 50 * (columns > width / 2)
    return SliceStack(
        data=data.astype(np.int16),
        affine=from_spacing((2.0, 2.0, 10.0)),
        positions=np.arange(slices) * 10.0,
        thickness=10.0,
        frame_times=np.arange(frames) * 0.04,
        rank=4 if frames > 1 else 3,
    )


def reconstruction(stack: SliceStack, factor: int = FACTOR) -> Volume:
    """Linear samples that differ a little: a reconstruction as far as a page is concerned."""
    return sampled_volume(
        stack, lambda *asked: np.stack([linear(*asked), linear(*asked) + 0.1]), factor
    )


@pytest.fixture(scope="session")
def stack() -> SliceStack:
    return film()


@pytest.fixture(scope="session")
def volume(stack) -> Volume:
    return reconstruction(stack)


@pytest.fixture(scope="session")
def files(tmp_path_factory, stack, volume) -> Files:
    folder = tmp_path_factory.mktemp("name_of_patient")
    found = Files(
        *(folder / f"{name}.nii.gz" for name in ("sparse", "dense", "labels", "uncertainty"))
    )
    write_volume(as_volume(stack), found.sparse)
    write_volume(volume, found.dense)
    write_uncertainty(volume, found.uncertainty)
    labels = np.where(volume.data > 400, 3, 0).astype(np.uint8)
    write_labels(labels, as_stack(volume), found.labels)
    record = record_of(volume, found.sparse) | {"files_sha256": {"output": sha256(found.dense)}}
    write_json(record, sidecar_of(found.dense))
    return found


def as_volume(stack: SliceStack) -> Volume:
    return Volume(
        data=stack.data,
        affine=stack.affine,
        positions=stack.positions,
        acquired=np.ones(stack.n_slices, np.bool_),
        frame_times=stack.frame_times,
        rank=stack.rank,
    )


def record_of(volume: Volume, source: Path) -> dict[str, object]:
    return {
        "input": {"sha256": sha256(source)},
        "output": {
            "shape": list(volume.data.shape),
            "acquired_slices": volume.acquired.nonzero()[0].tolist(),
        },
    }
