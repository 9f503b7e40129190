"""The page itself, in one text, and its layers as small compressed NIfTI-1 files."""

from __future__ import annotations

import base64
import gzip
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from calid import CLASSES
from calid.errors import CalidWarning
from calid.html import templates
from calid.io.atomic import atomic
from calid.view.scene import Layer, Panel, Scene

__all__ = ["embedded_page", "encode", "linked_page", "write_page"]

COLOURS = {"RV": (94, 156, 255), "MYO": (94, 214, 150), "LV": (255, 107, 107)}
"""RGB of every label."""

LARGE = 200_000_000
"""Bytes of a page above which browsers become slow."""

KEPT = (np.uint8, np.int16, np.uint16, np.float32)
"""Types that the page reads as they are."""

LABEL_INTENT = 1002
"""NIfTI's code for values that are indices of labels; the page draws their outlines."""


def write_page(scene: Scene, path: Path) -> None:
    """Write a page that holds everything, complete or not at all; see `calid.io.atomic`."""
    content = embedded_page(scene).encode()
    if len(content) > LARGE:
        warnings.warn(
            f"{path} has {len(content) / 1e6:.0f} MB, which browsers open slowly. Fewer frames or "
            "volumes make it smaller; served (without --html) it opens faster.",
            CalidWarning,
            stacklevel=2,
        )
    with atomic(path) as file:
        file.write(content)


def embedded_page(scene: Scene) -> str:
    """A page that holds its own voxels and opens from disk, without a network."""
    voxels = [base64.b64encode(encode(layer)).decode("ascii") for layer in scene.layers()]
    return linked_page(scene, [f"#layer-{number}" for number in range(len(voxels))], voxels)


def encode(layer: Layer) -> bytes:
    """NIfTI-1 with the header of the shown grid and the voxels of the stored slices, gzipped.

    The header is new, so no text of an input is in it. The page repeats the stored slices that
    are shown more than once.
    """
    data = layer.data
    if data.dtype not in KEPT:  # large integers and doubles lose digits that no eye sees
        data = data.astype(np.int16 if data.dtype in (np.int8, np.bool_) else np.float32)
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


def linked_page(scene: Scene, links: Sequence[str], voxels: Sequence[str] = ()) -> str:
    """A page with links to where ``scene.layers()`` are encoded; ``voxels`` are in the page."""
    rest = iter(links)

    def described(layer: Layer | None) -> dict[str, Any] | None:
        if layer is None:
            return None
        return {
            "link": next(rest),
            "stored": layer.data.shape[1],
            "slices": layer.slices.tolist(),
            "window": layer.window,
        }

    def panel(one: Panel) -> dict[str, Any]:
        affine, (height, width) = one.image.affine, one.image.data.shape[-2:]
        shown = width, height, len(one.image.slices)
        return {
            "title": one.title,
            "origin": one.marks.origin,
            "acquired": one.marks.acquired.tolist(),
            "thick": one.marks.thick,
            # Where along the slices a point lies, and how far it is to the next slice.
            "toSlice": np.linalg.inv(affine)[2].tolist(),
            "step": affine[:3, 2].tolist(),
            # How far the panel reaches to the right, up and towards the viewer, in mm.
            "size": (np.abs(affine[:3, :3]) @ shown).tolist(),
            "image": described(one.image),
            "uncertainty": described(one.uncertainty),
            "labels": described(one.labels),
        }

    description = {
        "panels": [panel(one) for one in scene.panels],
        "directions": scene.directions,
        "frameTimes": scene.frame_times.tolist(),
        "centre": scene.centre.tolist(),
        "classes": [
            {"name": name, "label": label, "colour": COLOURS[name]}
            for name, label in CLASSES.items()
        ],
    }
    template = templates("calid.view", "static").get_template("page.html.j2")
    return template.render(scene=description, voxels=voxels)
