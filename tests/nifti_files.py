"""Small NIfTI files for tests, and what is read of them as a volume to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from calid.geometry.affine import from_spacing
from calid.stack import SliceStack, Volume

AFFINE = from_spacing((1.5, 1.25, 8.0), origin=(10, -20, 30))


def save(
    path: Path,
    data: np.ndarray,
    affine: np.ndarray = AFFINE,
    *,
    kind: Any = nib.Nifti1Image,
    endianness: str = "<",
    time: str | int = "sec",
    dt: float | None = None,
    **fields: Any,
) -> Path:
    """Write ``data`` (column, row, slice, frame) with both forms set, then raw header fields."""
    image = kind(data, affine, kind.header_class(endianness=endianness), dtype=data.dtype)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", time)
    if dt is not None:
        image.header["pixdim"][4] = dt
    for name, value in fields.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    return path


def values(shape: tuple[int, ...], dtype: str = "i2", below: int = 127) -> np.ndarray:
    return np.random.default_rng(0).integers(0, below, shape).astype(dtype)


def as_volume(stack: SliceStack, **changes: Any) -> Volume:
    fields: dict[str, Any] = {
        "data": stack.data,
        "affine": stack.affine,
        "positions": stack.positions,
        "acquired": np.ones(stack.n_slices, dtype=bool),
        "frame_times": stack.frame_times,
        "intensity": stack.intensity,
        "rank": stack.rank,
    }
    return Volume(**(fields | changes))
