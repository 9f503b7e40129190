"""A layer as the page gets it: a small NIfTI-1 file, compressed."""

from __future__ import annotations

import gzip
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from calid.view.scene import Layer

__all__ = ["encode"]

KEPT = (np.uint8, np.int16, np.uint16, np.float32)
"""Types that the page reads as they are."""


LABEL_INTENT = 1002
"""NIfTI's code for values that are indices of labels; the page draws their outlines."""


def encode(layer: Layer) -> bytes:
    """NIfTI-1 with the header of the shown grid and the voxels of the stored slices, gzipped.

    The header is made from nothing, so no text of an input is in it. The page repeats the
    stored slices that are shown more than once.
    """
    data = _page_type(layer.data)
    frames, _, height, width = data.shape
    new_header: Any = nib.Nifti1Header  # nibabel's constructors carry no types
    header = new_header(endianness="<")
    header.set_data_dtype(data.dtype)
    shape = (width, height, len(layer.slices), frames)
    header.set_data_shape(shape if frames > 1 else shape[:3])
    header.set_qform(layer.affine, code=1)
    header.set_sform(layer.affine, code=1)
    header.set_xyzt_units("mm", "sec")
    header["scl_slope"], header["scl_inter"] = layer.intensity.slope, layer.intensity.intercept
    header["vox_offset"] = 352
    header["intent_code"] = LABEL_INTENT if layer.labels else 0
    voxels = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<"))
    return gzip.compress(header.binaryblock + bytes(4) + voxels.tobytes(), compresslevel=6, mtime=0)


def _page_type(data: NDArray[np.generic]) -> NDArray[np.generic]:
    """A type that the page can read; large integers and doubles lose digits that no eye sees."""
    if data.dtype in KEPT:
        return data
    fits = np.int16 if data.dtype in (np.int8, np.bool_) else np.float32
    return data.astype(fits)
