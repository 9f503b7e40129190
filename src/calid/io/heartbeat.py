"""The time between frames that a heart can have, whatever unit a header meant.

Converters write milliseconds where the header says seconds, and the other way round; many write
1 because they do not know. A film of a heart takes one cycle, and no heart takes less than
0.2 s or more than 3 s for it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calid.errors import GeometryError

__all__ = ["ASSUMED", "assumed_step", "header_times", "time_scale"]

CYCLE = (0.2, 3.0)
"""Shortest and longest heart cycle in seconds that is believed."""

STEP = (0.001, 0.2)
"""Time in seconds between two frames of a film that scanners manage."""

ASSUMED = 1.0
"""Cycle in seconds where nothing in a file tells it, and time between two or three frames."""

WHOLE_CYCLE = (4, 8)
"""From the first number of frames, a film takes at most one cycle; from the second, at least
one. Shorter films may be phases of different beats, or part of a cycle."""

_SECONDS = {0: 1.0, 8: 1.0, 16: 1e-3, 24: 1e-6}  # NIfTI codes: unknown, s, ms, us
_UNITS = (1e-3, 1e-6, 1e3, 1e6)


def time_scale(step: float, frames: int) -> tuple[float | None, str]:
    """Factor that makes the times of a file plausible for a heart, and a note about it.

    ``step`` is the time between frames in seconds according to the file; ``frames`` is 2 or more.
    The scale is 1 if the file is believed, a power of 1000 if it means another unit, negative if
    its times run backwards; none if no unit makes sense, and `assumed_step` applies. The note is
    empty if there is no doubt.
    """
    size, cycle = abs(step), abs(step) * frames
    if step > 0 and _plausible(size, frames):
        return 1.0, ""
    said = f"the time between frames is {step:.4g} s in the header, a cycle of {cycle:.4g} s"
    if math.isfinite(step) and step:
        if _plausible(size, frames):
            return -1.0, f"{said}. The order of frames is kept, and the times run forwards."
        for scale in _UNITS:
            if _plausible(size * scale, frames):
                note = f"{said}. The unit is taken for another: {1000 * size * scale:.4g} ms."
                return math.copysign(scale, step), note
        if step > 0 and STEP[0] <= size <= STEP[1]:
            usual = "{:g} to {:g} s".format(*CYCLE)
            return 1.0, f"{said}. That is no single heart cycle ({usual}); it is kept."
    return None, (
        f"{said}, and no unit makes sense of it. {1000 * assumed_step(frames):.4g} ms are assumed "
        "between frames: do not trust the times."
    )


def assumed_step(frames: int) -> float:
    """Seconds between frames where nothing tells them: a cycle of 1 s, cut evenly."""
    return ASSUMED / frames if frames >= WHOLE_CYCLE[0] else ASSUMED


def header_times(
    header: Any, frames: int, axis: int, path: Path
) -> tuple[NDArray[np.float64], list[str]]:
    """Seconds of each frame by a NIfTI header, and what was decided.

    ``axis`` is the number of the axis that holds the frames, 4 or more; a `GeometryError` says
    that it is no time.
    """
    units = int(header["xyzt_units"]) & 56
    if units not in _SECONDS and frames > 1:
        raise GeometryError(
            path, "The fourth axis is a spectrum (Hz, ppm or rad/s), not time.", "Give a cine."
        )
    unit = _SECONDS.get(units, 1.0)
    step, scale = 1.0, 1.0
    notes: list[str] = []
    if frames > 1:
        # An axis that stands in another's place may have its step in either field.
        fields = dict.fromkeys((axis, 4))
        steps = [float(header["pixdim"][field]) * unit for field in fields]
        step = next((s for s in steps if time_scale(s, frames)[0] is not None), steps[0])
        found, note = time_scale(step, frames)
        step, scale = (assumed_step(frames), 1.0) if found is None else (step * found, abs(found))
        notes += [note] * bool(note)
    said = start = float(header["toffset"]) * unit * scale
    if not abs(said) <= CYCLE[1]:
        start = next((said * s for s in _UNITS[:2] if abs(said * s) <= CYCLE[1]), 0.0)
        if frames > 1 or math.isfinite(said):
            notes.append(f"the first frame is at {said:g} s in the header. {start:g} s is used.")
    times = start + np.arange(frames, dtype=np.float64) * step
    return times, [f"{path}: {note}" for note in notes]


def _plausible(step: float, frames: int) -> bool:
    shortest = CYCLE[0] if frames >= WHOLE_CYCLE[1] else STEP[0] * frames
    longest = CYCLE[1] if frames >= WHOLE_CYCLE[0] else 2 * frames
    rounding = 1e-5  # of single precision
    return shortest * (1 - rounding) <= step * frames <= longest * (1 + rounding)
