"""Affines: build them, check them, and choose one from a NIfTI header.

An affine is ``(4, 4)`` and maps voxel indices ``(column, row, slice)`` to RAS+ millimetres.

The rule for NIfTI headers, in full:

1. Directions and origin come from the sform if its code is set, else from the qform.
   With neither, the axes are those of an untilted supine scan (columns to the left, rows to
   the back, slices to the head: ``diag(-dx, -dy, dz)``, origin 0), and a warning says so.
2. Spacing comes from the affine's column lengths, unless they differ from pixdim by more than
   1 %: then the columns are rescaled to pixdim, with a warning. Scanners and converters fill in
   pixdim; an sform of 1 mm in all directions beside it is known damage (the ACDC originals).
   ``spacing_from`` overrides this: ``"pixdim"`` always rescales, ``"affine"`` never does.
3. If sform and qform are both set and differ, the sform wins, with a warning.
4. Metres and microns become millimetres; an unknown unit is read as millimetres. Any spacing
   outside 0.2 to 50 mm is kept, with a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from nibabel.quaternions import quat2mat
from numpy.typing import ArrayLike, NDArray

from calid.errors import GeometryError, UsageError

__all__ = ["SpacingFrom", "check", "dense_affine", "from_spacing", "resolve", "spacing"]

Affine = NDArray[np.float64]
SpacingFrom = Literal["auto", "pixdim", "affine"]

SHEAR_TOLERANCE = 0.01
"""Largest cosine between two axes: 0.57 degrees away from a right angle."""
SPACING_TOLERANCE = 0.01
"""Largest relative difference between two spacings that are taken as equal."""
DIRECTION_TOLERANCE = 0.005
"""Largest difference of direction cosines that is put down to the qform's single precision."""
ORIGIN_TOLERANCE = 0.1
"""Largest distance in mm between two origins that are taken as equal."""
PLAUSIBLE_SPACING = (0.2, 50.0)
"""Voxel sizes in mm that a cardiac scan can have."""

LARGEST = 1e6
"""Largest distance in mm (1 km) in an affine: beyond it is a damaged header, not a scanner."""

SMALLEST = 1e-6
"""Smallest voxel size in mm (1 nm) of a header that is not damaged."""

_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # NIfTI unit codes: metre, millimetre, micron
_OPTION = "`spacing_from`"
_HALF_TURN = 1e-7  # squared cosine of half the angle


def from_spacing(
    steps: Sequence[float], origin: Sequence[float] = (0.0, 0.0, 0.0), source: object = "spacing"
) -> Affine:
    """Affine ``diag(-dx, -dy, dz)`` of an untilted supine scan.

    ``steps`` are ``(column step, row step, slice step)`` in mm, ``origin`` is the first voxel's
    centre. A `GeometryError` about ``source`` if a step is not from `SMALLEST` to `LARGEST`.
    """
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, :3] *= _positive(steps, source)
    affine[:3, 3] = origin
    return affine


def spacing(affine: ArrayLike) -> tuple[float, float, float]:
    """Voxel size in mm as ``(column step, row step, slice step)``: the column lengths."""
    x, y, z = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(x), float(y), float(z)


def dense_affine(affine: ArrayLike, step: float, start: float = 0.0) -> Affine:
    """Affine of a denser stack with the same planes, ``step`` mm apart.

    Its first slice is ``start`` mm along the normal from the old one. A `GeometryError` if ``step``
    is not a positive number.
    """
    if not (np.isfinite(step) and step > 0):
        raise GeometryError(
            f"step {step}", "Slices are a positive distance apart.", "Use 1, for example."
        )
    dense = np.array(affine, dtype=np.float64)
    normal = dense[:3, 2] / np.linalg.norm(dense[:3, 2])
    dense[:3, 2] = normal * step
    dense[:3, 3] += normal * start
    return dense


def check(affine: ArrayLike, source: object) -> Affine:
    """Affine as float64, once it is known to be usable; ``source`` is what an error is about.

    Raises
    ------
    GeometryError
        If it has another shape or last row, is not finite or beyond `LARGEST`, is singular,
        or if two axes are more than 0.57 degrees (cosine `SHEAR_TOLERANCE`) away from a right
        angle.
    """
    remedy = "Convert the scan again from DICOM, for example with dcm2niix."
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise GeometryError(source, "An affine is 4 x 4 and ends with the row 0 0 0 1.", remedy)
    if not np.all(np.isfinite(matrix)):
        raise GeometryError(source, "The affine holds values that are not numbers.", remedy)
    if np.max(np.abs(matrix)) > LARGEST:
        raise GeometryError(source, f"The affine reaches beyond {LARGEST:g} mm.", remedy)
    lengths = np.asarray(spacing(matrix))
    with np.errstate(divide="ignore", invalid="ignore"):  # of axes that nearly vanish
        axes = matrix[:3, :3] / lengths
        share = abs(np.linalg.det(axes))
    if not (np.all(lengths > 0) and share >= 1e-6):
        raise GeometryError(source, "The affine is singular: two axes coincide.", remedy)
    cosine = float(np.max(np.abs(axes.T @ axes - np.eye(3))))
    if cosine > SHEAR_TOLERANCE:
        off, allowed = np.degrees(np.arcsin([min(cosine, 1.0), SHEAR_TOLERANCE]))
        raise GeometryError(
            source,
            f"The affine is sheared: two axes are {off:.2f} degrees away from a right angle, "
            f"{allowed:.2f} are allowed.",
            remedy,
        )
    return matrix


def resolve(
    header: Any, source: object, spacing_from: SpacingFrom = "auto"
) -> tuple[Affine, list[str]]:
    """Choose one affine by the rule at the top of this module.

    Parameters
    ----------
    header
        A NIfTI-1 or NIfTI-2 header, unchecked: its fields as they are in the file.
    source
        What messages are about, for example the file.
    spacing_from
        Where the spacing comes from: the rule, always pixdim, or always the affine.

    Returns
    -------
    affine
        Shape ``(4, 4)``, RAS+ millimetres.
    notes
        Warnings for the user, one sentence or two each; empty for a sound header.

    Raises
    ------
    GeometryError
        If pixdim is not positive, or the chosen affine fails `check`.
    UsageError
        If ``spacing_from`` has another value.
    """
    if spacing_from not in get_args(SpacingFrom):
        allowed = ", ".join(get_args(SpacingFrom))
        raise UsageError(
            f"{_OPTION} {spacing_from}", "There is no such choice.", f"Use one of: {allowed}."
        )
    unit = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    pixdim = np.asarray(header["pixdim"], dtype=np.float64)[1:4] * unit
    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    notes: list[str] = []
    if has_sform:
        rows = [np.asarray(header[f"srow_{axis}"], dtype=np.float64) for axis in "xyz"]
        chosen, name = np.vstack([np.stack(rows) * unit, [0, 0, 0, 1]]), "sform"
    elif has_qform:
        chosen, name = _qform(header, pixdim, unit, source), "qform"
    elif spacing_from == "affine":
        raise GeometryError(
            source, "Neither sform nor qform is set, so there is no affine.", f"Drop {_OPTION}."
        )
    else:
        chosen, name = from_spacing(pixdim.tolist(), source=f"{source} (pixdim)"), "pixdim"
        notes.append(
            f"{source}: neither sform nor qform is set. Spacing is pixdim's "
            f"({_text(pixdim)}), the axes are assumed to be left, back, head."
        )
    chosen = check(chosen, source)
    if spacing_from != "affine":
        own = np.asarray(spacing(chosen))
        steps = _positive(pixdim.tolist(), f"{source} (pixdim)")
        differs = bool(np.any(np.abs(own - steps) > SPACING_TOLERANCE * steps))
        if spacing_from == "pixdim" or differs:
            chosen[:3, :3] *= steps / own
        if spacing_from == "auto" and differs:
            notes.append(
                f"{source}: {name} says {_text(own)} and pixdim says {_text(steps)}. "
                f"pixdim is used; {_OPTION} affine takes the other."
            )
    if has_sform and has_qform:
        notes += _compare(chosen, header, pixdim, unit, source)
    low, high = PLAUSIBLE_SPACING
    final = np.asarray(spacing(chosen))
    if np.any(final < low) or np.any(final > high):
        notes.append(
            f"{source}: a spacing of {_text(final)} is implausible for a heart. "
            "Check the header's units (xyzt_units)."
        )
    return chosen, notes


def _compare(
    sform: Affine, header: Any, pixdim: NDArray[np.float64], unit: float, source: object
) -> list[str]:
    """Say where the qform contradicts the sform; spacing is judged elsewhere."""
    try:
        qform = check(_qform(header, pixdim, unit, source), source)
    except GeometryError:
        return [f"{source}: the qform cannot be read. The sform is used."]
    turn = sform[:3, :3] / spacing(sform) - qform[:3, :3] / spacing(qform)
    shift = float(np.linalg.norm(sform[:3, 3] - qform[:3, 3]))
    if np.max(np.abs(turn)) <= DIRECTION_TOLERANCE and shift <= ORIGIN_TOLERANCE:
        return []
    return [
        f"{source}: sform and qform disagree (origins {shift:.1f} mm apart, direction cosines "
        f"by up to {np.max(np.abs(turn)):.3f}). The sform is used, the qform is not."
    ]


def _qform(header: Any, pixdim: NDArray[np.float64], unit: float, source: object) -> Affine:
    steps = _positive(pixdim.tolist(), f"{source} (pixdim)")
    if float(header["pixdim"][0]) < 0:  # the qform's handedness flag
        steps[2] *= -1
    b, c, d = (float(header[f"quatern_{axis}"]) for axis in "bcd")
    rest = 1.0 - (b * b + c * c + d * d)
    # Single precision can push the squared length of a half turn just above 1.
    if not rest >= -1e-5:
        raise GeometryError(
            source, "The qform is not a rotation.", "Convert the scan again from DICOM."
        )
    # As in NIfTI's own code: a cosine this small is rounding error of a half turn, so it is 0.
    cosine = 0.0 if rest < _HALF_TURN else np.sqrt(rest)
    rotation = quat2mat([cosine, b, c, d])
    affine = np.eye(4)
    affine[:3, :3] = rotation * steps
    affine[:3, 3] = [float(header[f"qoffset_{axis}"]) * unit for axis in "xyz"]
    return affine


def _positive(steps: Sequence[float], source: object) -> NDArray[np.float64]:
    values = np.array(steps, dtype=np.float64)
    if values.shape != (3,) or not np.all((values >= SMALLEST) & (values <= LARGEST)):
        raise GeometryError(
            source,
            f"A voxel has three positive sizes, {SMALLEST:g} to {LARGEST:g} mm; these are "
            f"{_text(values)}.",
            f"Correct the header; if its sform is right, use {_OPTION} affine.",
        )
    return values


def _text(steps: NDArray[np.float64]) -> str:
    return " x ".join(f"{step:.4g}" for step in steps) + " mm"
