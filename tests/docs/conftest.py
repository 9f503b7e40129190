"""The files that stand in for a reader's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import pytest

from calid.data.phantom import HeartPhantom


def save(path: Path, seed: int, phases: tuple[float, ...] = (0.0,), slices: int = 4) -> None:
    """Write a small synthetic stack, 64 x 64 pixels."""
    stack = HeartPhantom(seed).acquire(field_of_view=96.0, slices=slices, phases=phases)
    voxels = stack.data.transpose(3, 2, 1, 0)
    image = nib.Nifti1Image(voxels if len(phases) > 1 else voxels[..., 0], stack.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 0.04
    path.parent.mkdir(exist_ok=True)
    nib.save(image, path)


@pytest.fixture(scope="session")
def readers_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that pages speak of."""
    folder = tmp_path_factory.mktemp("reader")
    save(folder / "stack.nii.gz", 3)
    save(folder / "film.nii.gz", 3, (0.0, 0.3), slices=3)
    for seed in (4, 5):
        save(folder / "stacks" / f"subject{seed}_ED.nii.gz", seed, slices=3)
    save(folder / "held-out" / "subject6_ED.nii.gz", 6, slices=3)
    return folder


@pytest.fixture
def reader(readers_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of it, as the working directory."""
    folder = tmp_path / "reader"
    shutil.copytree(readers_files, folder)
    monkeypatch.chdir(folder)
    return folder
