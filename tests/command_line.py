"""`calid` as its users call it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from calid.cli.main import main


def run(*arguments: object) -> int:
    """Run a command in this process; its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def write_nifti(path: Path, voxels: np.ndarray, affine: object = (1.5, 1.5, 10.0)) -> Path:
    """Write voxels in NIfTI's order, with an affine or voxel sizes in mm, and 50 ms a frame."""
    matrix = np.asarray(affine, float)
    image = nib.Nifti1Image(voxels, matrix if matrix.ndim == 2 else np.diag([*matrix, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    if voxels.ndim == 4:
        image.header["pixdim"][4] = 0.05
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def random_nifti(path: Path, *shape: int, dtype: type = np.int16) -> Path:
    """Write noise from 0 to 250, the same every time, in voxels of 1.5 x 1.5 x 10 mm."""
    return write_nifti(path, np.random.default_rng(0).integers(0, 250, shape).astype(dtype))
