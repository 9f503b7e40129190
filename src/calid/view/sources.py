"""Read the files of a page with their records, and check that they belong together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from calid import SliceStack, check_same_grid, read, read_labels, read_stack, record_of
from calid.errors import CalidWarning, GeometryError, UsageError
from calid.io.sidecar import sha256
from calid.view.scene import Marks, Overlays, Scene, comparison, lone_panel, make_scene

__all__ = ["MOST_PANELS", "load_scene", "read_marks"]

MOST_PANELS = 4
"""More columns would be too narrow to read."""


def load_scene(
    volumes: Sequence[Path],
    sparse: Path | None = None,
    uncertainty: Path | None = None,
    labels: Path | None = None,
    titles: Sequence[str] = (),
    reader: Callable[[Path], SliceStack] = read,
    label_map: Mapping[int, int] | None = None,
) -> Scene:
    """Read everything that a page shows.

    Parameters
    ----------
    volumes
        One panel each.
    sparse
        The stack that the first volume was reconstructed from: two more panels, as acquired
        and linear, on the left.
    uncertainty, labels
        On the grid of the first volume.
    titles
        Titles of the volumes. The default titles are neutral, since file names may name a patient.
    reader
        Reads volumes and stack.
    label_map
        Which values of the file are which labels, if they are others; as `calid.read_labels`.

    Raises
    ------
    UsageError
        If there are too many volumes, or as many titles as volumes are not given.
    GeometryError
        If films differ in length, or files that belong together lie elsewhere.
    InputError, IntensityError
        As `calid.read`.
    """
    most = MOST_PANELS - (2 if sparse else 0)
    if not 1 <= len(volumes) <= most:
        raise UsageError(
            "VOLUME", f"{len(volumes)} volumes do not fit.", f"Give 1 to {most} of them."
        )
    if titles and len(titles) != len(volumes):
        raise UsageError(
            "--titles",
            f"{len(titles)} titles do not fit {len(volumes)} volumes.",
            "Give one title per volume.",
        )
    stacks = [reader(path) for path in volumes]
    marks = [read_marks(path, stack) for path, stack in zip(volumes, stacks, strict=True)]
    names = list(titles) or _neutral(marks)
    overlays = _overlays(stacks[0], uncertainty, labels, label_map)
    if sparse is not None:
        acquired = reader(sparse)
        _check_origin(volumes[0], sparse)
        panels = comparison(acquired, stacks[0], marks[0], names[0], overlays)
    else:
        panels = [lone_panel(names[0], stacks[0], marks[0], overlays)]
    for path, name, stack, mark in zip(volumes[1:], names[1:], stacks[1:], marks[1:], strict=True):
        if stack.n_frames != stacks[0].n_frames:
            raise GeometryError(
                path,
                f"{stack.n_frames} frames do not go with {stacks[0].n_frames}.",
                "Show films of the same length side by side.",
            )
        panels.append(lone_panel(name, stack, mark))
    return make_scene(panels, stacks[0], _centre(volumes[0], stacks[0], marks[0]))


def read_marks(path: Path, stack: SliceStack) -> Marks:
    """Which slices are acquired, from the record beside a reconstruction.

    The origin is ``unknown`` without a record. One that does not hold the hash of this file gives
    a warning and is not used.
    """
    unknown = Marks("unknown", np.empty(0))
    record, foreign = record_of(path)
    output = record.get("output", {})
    acquired = output.get("acquired_slices")
    sound = (
        isinstance(acquired, list)
        and acquired
        and all(type(k) is int for k in acquired)
        and output.get("shape") == list(stack.shape)
        and np.all(np.diff(acquired) > 0)
        and 0 <= acquired[0] <= acquired[-1] < stack.n_slices
    )
    if sound:
        return Marks("generated", np.array(acquired, np.float64))
    if foreign or acquired is not None:
        message = f"{foreign or path}: this is the record of another volume. Slices are not marked."
        warnings.warn(message, CalidWarning, stacklevel=2)
    return unknown


def _centre(path: Path, stack: SliceStack, marks: Marks) -> tuple[float, float] | None:
    """Row and column in the middle of the heart, if the volume's own record has its place."""
    if marks.origin != "generated":
        return None
    try:
        region = record_of(path)[0]["output"]["region"]
        (top, bottom), (left, right) = (map(int, region[axis]) for axis in ("rows", "columns"))
    except (KeyError, TypeError, ValueError):
        return None
    height, width = stack.shape[2:]
    inside = 0 <= top < bottom <= height and 0 <= left < right <= width
    return ((top + bottom - 1) / 2, (left + right - 1) / 2) if inside else None


def _check_origin(dense: Path, sparse: Path) -> None:
    """Warn if the record names another stack; without a record the grids decide."""
    source = record_of(dense)[0].get("input")
    named = source.get("sha256") if isinstance(source, dict) else None
    if named and sparse.is_file() and sha256(sparse) != named:
        message = f"{dense} was reconstructed from another file than {sparse}, says its record."
        warnings.warn(message, CalidWarning, stacklevel=2)


def _overlays(
    stack: SliceStack,
    uncertainty: Path | None,
    labels: Path | None,
    label_map: Mapping[int, int] | None,
) -> Overlays:
    spread = None
    if uncertainty is not None:
        spread = read_stack(uncertainty)
        check_same_grid(spread, stack, uncertainty)
        if spread.n_frames != stack.n_frames:
            raise GeometryError(
                uncertainty,
                f"Its {spread.n_frames} frames do not go with {stack.n_frames}.",
                "Give the uncertainty of the first volume.",
            )
    return spread, None if labels is None else read_labels(labels, stack, label_map=label_map)


def _neutral(marks: Sequence[Marks]) -> list[str]:
    """``CaLID`` where a record says so, else a number where there are several."""
    names = ["CaLID" if mark.origin == "generated" else "Volume" for mark in marks]
    return [
        name if names.count(name) == 1 else f"{name} {names[:k].count(name) + 1}"
        for k, name in enumerate(names)
    ]
