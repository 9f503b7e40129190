"""Which images of an exam are the short-axis stack: parallel planes, not names.

Images that share orientation, matrix, pixel spacing and contrast are a group. The stack is the
group with the most planes, but a film of three planes or more goes before any still: scouts of the
whole chest have more planes than a heart. Among equals the one with more images is taken.
Of the other groups

- those more than `NEAR` degrees away are other views (long-axis, scouts): left out;
- those of another contrast (late enhancement, mapping, perfusion) are left out, wherever they lie;
- nearly parallel ones that cover the same depth themselves are other stacks: left out;
- nearly parallel ones are *odd* if the stack lacks a slice where they have one, and they
  are films, or stills, as the stack is: slices that should have been in it, had they not been
  turned or given another matrix. So are planes shifted in-plane;
- the rest are other images of the same region: left out.

Odd slices are for the user to decide about: without them the stack has a hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calid.io.dicom_fields import number, text
from calid.io.dicom_read import Image
from calid.io.dicom_report import LeftOut

__all__ = ["CONTRAST", "Odd", "Plane", "choose", "describe", "unshifted"]

CONTRAST = "another contrast"

SAME = 0.2
"""Degrees by which the axes of two images may differ and count as the same."""
NEAR = 15.0
"""Degrees up to which a plane looks like a short-axis slice that was turned."""
SAME_CONTRAST = 0.25
"""Share by which the echo or inversion times of one contrast may differ from slice to slice."""
SAME_PLACE = 0.1
"""Distance in mm up to which two images have the same place, whatever their thickness."""
SAME_SHARE = 0.2
"""The same as a share of the slice thickness: nobody plans two slices that close."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Images at one place.

    Parameters
    ----------
    height
        mm along the normal, in scanner coordinates.
    images
        In no order.
    """

    height: float
    images: tuple[Image, ...]

    @property
    def series(self) -> tuple[int, ...]:
        """Series numbers."""
        return tuple(sorted({s for image in self.images if (s := image.series) is not None}))


@dataclass(frozen=True, eq=False)
class Odd:
    """Slices or images that do not fit the stack, and what is the matter with them."""

    what: str
    images: tuple[Image, ...]


def choose(images: Sequence[Image]) -> tuple[list[Plane], list[LeftOut], list[Odd], bool]:
    """Find the short-axis stack.

    Returns
    -------
    planes
        Of the stack, in the order of height; empty if no two planes are parallel.
    left_out
        Other views and stacks.
    odd
        Slices that would be missing from the stack.
    tie
        Whether another group is as good.
    """
    groups = [(group, _planes(group)) for group in _groups(images)]
    ranked = sorted(groups, key=_rank, reverse=True)
    if not ranked or len(ranked[0][1]) < 2:
        return [], [describe(*g, "no plane is parallel to it") for g in ranked], [], False
    stack, planes = ranked[0]
    left_out, odd = [], []
    for other, places in ranked[1:]:
        tilt = _tilt(stack[0].axes, other[0].axes)
        if tilt > NEAR:
            left_out.append(describe(other, places, "another view", tilt))
        elif not _same_contrast(stack[0], other[0]):
            left_out.append(describe(other, places, CONTRAST, tilt))
        elif _covers(places, planes):
            left_out.append(describe(other, places, "another stack", tilt))
        elif _lacking(planes, places):
            odd.append(Odd(f"{_count(other, places)} {_difference(stack[0], other[0])}", other))
        else:
            left_out.append(describe(other, places, "other images near the stack", tilt))
    tie = any(_rank(group) == _rank(ranked[0]) for group in ranked[1:])
    return planes, left_out, odd, tie


def _rank(group: tuple[tuple[Image, ...], list[Plane]]) -> tuple[bool, int, int]:
    """What makes a group the stack."""
    images, planes = group
    return len(planes) >= 3 and _frames(planes) > 1, len(planes), len(images)


def _frames(planes: Sequence[Plane]) -> int:
    """Images of the median plane."""
    return sorted(len(plane.images) for plane in planes)[len(planes) // 2]


def _lacking(planes: Sequence[Plane], places: Sequence[Plane]) -> bool:
    """Whether a stack lacks a slice where nearly parallel images of its kind have one.

    That is within the stack or one gap beyond, and not near a slice that it has. Heights are
    those of the images' centres, about which slices are turned.
    """
    normal = planes[0].images[0].axes[:, 2]
    own, other = (
        np.array([_centre(plane.images[0]) @ normal for plane in part]) for part in (planes, places)
    )
    gap = float(np.median(np.diff(own)))
    away = np.abs(other[:, None] - own).min(axis=1)
    inside = (other > own[0] - 1.5 * gap) & (other < own[-1] + 1.5 * gap)
    counts = sorted((_frames(planes), _frames(places)))
    return bool(np.any(inside & (away > gap / 4))) and counts[1] <= 1.5 * counts[0]


def _centre(image: Image) -> NDArray[np.float64]:
    """RAS+ millimetres of the middle of an image."""
    (rows, columns), (row, column) = image.matrix, image.spacing
    half = np.array([(columns - 1) * column / 2, (rows - 1) * row / 2])
    return np.asarray(image.corner + image.axes[:, :2] @ half)


def unshifted(planes: list[Plane]) -> tuple[list[Plane], list[Odd], float]:
    """Planes that lie above one another, those that do not, and the largest shift kept in mm.

    A grid has one in-plane origin; half a pixel is what it can pass over.
    """
    shifts = np.array([np.median([_in_plane(i) for i in p.images], axis=0) for p in planes])
    away = np.linalg.norm(shifts - np.median(shifts, axis=0), axis=1)
    limit = min(planes[0].images[0].spacing) / 2
    odd = [
        Odd(f"{_count(p.images, [p])} is shifted by {mm:.3g} mm within its plane", p.images)
        for p, mm in zip(planes, away, strict=True)
        if mm > limit
    ]
    kept = [p for p, mm in zip(planes, away, strict=True) if mm <= limit]
    return kept, odd, float(away[away <= limit].max(initial=0.0))


def describe(
    group: Sequence[Image], places: Sequence[Plane], reason: str, tilt: float | None = None
) -> LeftOut:
    """A group that is left out, in words that name nobody."""
    return LeftOut(
        reason=reason,
        images=len(group),
        planes=len(places),
        frames=max(len(p.images) for p in places),
        matrix=group[0].matrix,
        pixel_spacing_mm=group[0].spacing,
        angle_deg=None if tilt is None else round(tilt, 2),
        series=tuple(sorted({s for p in places for s in p.series})),
    )


def _groups(images: Sequence[Image]) -> list[tuple[Image, ...]]:
    groups: list[list[Image]] = []
    for image in images:
        for group in groups:
            if _alike(group[0], image):
                group.append(image)
                break
        else:
            groups.append([image])
    return [tuple(group) for group in groups]


def _alike(one: Image, other: Image) -> bool:
    return (
        one.matrix == other.matrix
        and np.allclose(one.spacing, other.spacing, rtol=0.005)
        and _turn(one.axes, other.axes) <= SAME
        and _same_contrast(one, other)
    )


def _same_contrast(one: Image, other: Image) -> bool:
    """Whether two images can be of one film, as far as their headers tell.

    Flip angles are no sign of it: scanners lower them slice by slice to spare the patient heat.
    """
    names = [text(i.header, "SequenceName").partition("_")[0] for i in (one, other)]
    echoes = [number(i.header, "EchoTime") for i in (one, other)]
    # Without a preparation there is no inversion time, which some write as 0.
    inversions = [number(i.header, "InversionTime") or 0.0 for i in (one, other)]
    return (
        ("" in names or names[0] == names[1])
        and (None in echoes or _close(*(e or 0.0 for e in echoes)))
        and _close(*inversions)
    )


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= SAME_CONTRAST * max(abs(one), abs(other))


def _turn(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Angle in degrees of the rotation between two frames of axes."""
    return float(np.degrees(np.arccos(np.clip((np.sum(one * other) - 1) / 2, -1, 1))))


def _tilt(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Angle in degrees between two planes, 0 to 90."""
    return float(np.degrees(np.arccos(np.clip(abs(one[:, 2] @ other[:, 2]), 0, 1))))


def _planes(group: Sequence[Image]) -> list[Plane]:
    """Images by place along the group's normal."""
    normal = group[0].axes[:, 2]
    heights = np.array([image.corner @ normal for image in group])
    thickness = [t for i in group if (t := number(i.header, "SliceThickness")) is not None]
    close = max(SAME_PLACE, SAME_SHARE * float(np.median(thickness or [0.0])))
    order = np.argsort(heights, kind="stable")
    cuts = np.flatnonzero(np.diff(heights[order]) > close) + 1
    return [
        Plane(float(np.median(heights[part])), tuple(group[i] for i in part))
        for part in np.split(order, cuts)
    ]


def _in_plane(image: Image) -> NDArray[np.float64]:
    return np.asarray(image.corner @ image.axes[:, :2])


def _covers(places: Sequence[Plane], planes: Sequence[Plane]) -> bool:
    """Whether a group is a stack of its own: most of the depth, at least half as many planes.

    Heights along normals that differ by `NEAR` degrees are compared by their extent.
    """
    extent = places[-1].height - places[0].height
    depth = planes[-1].height - planes[0].height
    return len(places) >= max(3, len(planes) / 2) and extent >= 0.5 * depth


def _difference(stack: Image, odd: Image) -> str:
    if odd.matrix != stack.matrix:
        own, wanted = ("x".join(map(str, image.matrix)) for image in (odd, stack))
        return f"has a matrix of {own}, not {wanted}"
    if not np.allclose(odd.spacing, stack.spacing, rtol=0.005):
        own, wanted = (" x ".join(f"{s:.4g}" for s in image.spacing) for image in (odd, stack))
        return f"has pixels of {own} mm, not {wanted} mm"
    return f"is turned by {_turn(stack.axes, odd.axes):.1f} degrees"


def _count(images: Sequence[Image], places: Sequence[Plane]) -> str:
    series = sorted({s for p in places for s in p.series})
    named = f", series {', '.join(map(str, series))}" if series else ""
    slices = "1 slice" if len(places) == 1 else f"A group of {len(places)} slices"
    return f"{slices} ({len(images)} image{'s' * (len(images) > 1)}{named})"
