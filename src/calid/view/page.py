"""The page itself: a template, its style and scripts, and what it is to show, in one text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from calid.errors import CalidWarning
from calid.io.atomic import atomic
from calid.labels import CLASSES
from calid.view.encode import encode
from calid.view.scene import Layer, Panel, Scene

__all__ = ["POLICY", "embedded_page", "linked_page", "write_page"]

SCRIPTS = ("decode.js", "layout.js", "panel.js", "viewer.js")
"""Our own, in this order, in one scope after NiiVue."""

POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
"""Content security policy: only what is in the page runs, and nothing is fetched elsewhere."""

COLOURS = {"RV": (94, 156, 255), "MYO": (94, 214, 150), "LV": (255, 107, 107)}
"""RGB of every label."""

LARGE = 200_000_000
"""Bytes of a page above which browsers become slow."""


def write_page(scene: Scene, path: Path) -> None:
    """Write a page that holds everything, complete or not at all.

    Raises
    ------
    OutputError
        If it cannot be written there; an older file is then unchanged.
    """
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
    layers = scene.layers()
    voxels = "\n".join(
        f'<script type="text/plain" id="layer-{number}">'
        f"{base64.b64encode(encode(layer)).decode('ascii')}</script>"
        for number, layer in enumerate(layers)
    )
    return _page(scene, [f"#layer-{number}" for number in range(len(layers))], voxels)


def linked_page(scene: Scene, links: Sequence[str]) -> str:
    """A page that fetches its voxels.

    Parameters
    ----------
    links
        Where each of ``scene.layers()`` is, as `calid.view.encode.encode` gives it.
    """
    return _page(scene, links, "")


def _page(scene: Scene, links: Sequence[str], voxels: str) -> str:
    script = "\n".join(_static(name) for name in SCRIPTS)
    niivue, style = _static("niivue.min.js"), _static("viewer.css")
    policy = POLICY.format(
        script=f"{_hash(niivue)} {_hash(script)}",
        style=_hash(style),
    )
    parts = {
        "policy": policy,
        "style": style,
        "scene": json.dumps(_description(scene, links)).replace("<", "\\u003c"),
        "voxels": voxels,
        "niivue": niivue,
        "script": script,
    }
    # One pass, so that nothing that is put in is looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _static("page.html"))


def _static(name: str) -> str:
    return resources.files("calid.view").joinpath("static", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _description(scene: Scene, links: Sequence[str]) -> dict[str, Any]:
    rest = iter(links)

    def described(layer: Layer | None) -> dict[str, Any] | None:
        if layer is None:
            return None
        stored = layer.data.shape[1]
        return {
            "link": next(rest),
            "stored": stored,
            "slices": layer.slices.tolist(),
            "window": list(layer.window),
        }

    def panel(one: Panel) -> dict[str, Any]:
        affine = one.image.affine
        return {
            "title": one.title,
            "origin": one.marks.origin,
            "acquired": one.marks.acquired.tolist(),
            "thick": one.marks.thick,
            # Where along the slices a point lies, and how far it is to the next slice.
            "toSlice": np.linalg.inv(affine)[2].tolist(),
            "step": affine[:3, 2].tolist(),
            # How far the panel reaches to the right, up and towards the viewer, in mm.
            "size": (np.abs(affine[:3, :3]) @ _shown_shape(one.image)).tolist(),
            "image": described(one.image),
            "uncertainty": described(one.uncertainty),
            "labels": described(one.labels),
        }

    return {
        "panels": [panel(one) for one in scene.panels],
        "directions": {name: list(ends) for name, ends in scene.directions.items()},
        "frameTimes": scene.frame_times.tolist(),
        "centre": scene.centre.tolist(),
        "classes": [
            {"name": name, "label": label, "colour": COLOURS[name]}
            for name, label in CLASSES.items()
        ],
    }


def _shown_shape(layer: Layer) -> tuple[int, int, int]:
    """``(width, height, shown slices)``."""
    height, width = layer.data.shape[-2:]
    return width, height, len(layer.slices)
