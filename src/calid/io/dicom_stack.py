"""Which images of an exam are the short-axis stack: parallel planes, not names.

Images that share orientation, matrix, pixel spacing and contrast form a group. `_RULES` choose the
stack among the groups of two planes or more: each rule in turn keeps the groups that pass it,
unless none does. If several are left, nothing in the images says which one is meant.

Another group is *odd* if it is nearly parallel to the stack, of the same kind, and has a slice
where the stack lacks one: its slices belong in the stack, but were turned or have another matrix.
Planes shifted in-plane are odd too. The user has to decide about odd slices, because without them
the stack has a hole. Everything else is left out; `_reason` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from calid.io.dicom_fields import TRIGGERS, first_number, number
from calid.io.dicom_images import DicomReport, Image, LeftOut
from calid.words import count

__all__ = [
    "SAME_PLACE",
    "TOLD",
    "Group",
    "Plane",
    "choose",
    "covers",
    "in_words",
    "numbers_of",
    "unshifted",
]

SAME = 0.2
"""Degrees by which the axes of two images may differ and count as the same."""
NEAR = 15.0
"""Degrees up to which a plane looks like a short-axis slice that was turned."""
SAME_PLACE = 0.1
"""Distance in mm up to which two images have the same place, whatever their thickness."""
SAME_SHARE = 0.2
"""The same as a share of the slice thickness: nobody plans two slices that close."""
TOLD = 0.1
"""mm by which gaps may differ, or slices be shifted in-plane, before it is said."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Images at one place, in no order."""

    height: float  # mm along the normal, in scanner coordinates
    images: tuple[Image, ...]


@dataclass(frozen=True, eq=False)
class Group:
    """Images of one orientation, matrix, pixel spacing and contrast."""

    images: tuple[Image, ...]  # in no order
    planes: list[Plane]  # the same images, by height

    @property
    def series(self) -> tuple[int, ...]:
        """Series numbers of its images."""
        return numbers_of(self.images)

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector, RAS+."""
        return self.images[0].axes[:, 2]

    @property
    def frames(self) -> int:
        """Images of the median plane."""
        return sorted(len(plane.images) for plane in self.planes)[len(self.planes) // 2]

    @property
    def film(self) -> bool:
        """Whether it is a stack of films."""
        return len(self.planes) >= 3 and self.frames > 1

    @cached_property
    def kind(self) -> str:
        """What sets its contrast apart; empty for a cine, and for a plain still.

        Frames of a cine are of one heartbeat. A film whose frames all have the same time after
        the R wave, or times of several beats, shows many heartbeats: perfusion, mostly.
        """
        kind = self.images[0].contrast.kind
        plane = max(self.planes, key=lambda p: len(p.images))
        read = (first_number(image.header, *TRIGGERS) for image in plane.images)
        times = [time for time in read if time is not None]
        if kind or len(times) < max(2, len(plane.images)):
            return kind
        header = plane.images[0].header
        beat = first_number(header, "NominalInterval", "RRIntervalTimeNominal") or np.inf
        return "" if 0 < max(times) - min(times) <= 2 * beat else "a film over many heartbeats"

    @property
    def tilt(self) -> tuple[float, str]:
        """Degrees from the nearest of the patient's own planes, and its name."""
        angles = np.degrees(np.arccos(np.clip(np.abs(self.normal), 0, 1)))
        nearest = int(angles.argmin())
        return float(angles[nearest]), ("sagittal", "coronal", "axial")[nearest]

    @property
    def oblique(self) -> bool:
        """Whether it is a stack that lies along none of the patient's own planes."""
        return len(self.planes) >= 3 and self.tilt[0] > NEAR

    @property
    def processing(self) -> int:
        """How far its median image is from what was acquired."""
        return sorted(image.processing for image in self.images)[len(self.images) // 2]

    def __str__(self) -> str:
        """Describe it without naming anybody."""
        angle, plane = self.tilt
        kinds = [self.kind] * bool(self.kind) + ["DERIVED"] * bool(self.processing)
        return (
            f"{in_words(self.series)} ({count(len(self.planes), 'slice')} of "
            f"{count(self.frames, 'frame')}, {angle:.0f} degrees off the {plane} plane"
            f"{''.join(f', {kind}' for kind in kinds)})"
        )


def _alike(one: Image, other: Image) -> bool:
    return (
        one.matrix == other.matrix
        and np.allclose(one.spacing, other.spacing, rtol=0.005)
        and turn(one.axes, other.axes) <= SAME
        and one.contrast.fits(other.contrast)
    )


def turn(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Angle in degrees of the rotation between two frames of axes."""
    return float(np.degrees(np.arccos(np.clip((np.sum(one * other) - 1) / 2, -1, 1))))


def _planes(group: Sequence[Image]) -> list[Plane]:
    """Images by place along the group's normal.

    Images that lie closer than a share of the slice thickness are at one place. The thickness is
    that of the header, or the usual gap if that is less: a header may hold that of a whole slab.
    """
    heights = np.array([image.corner @ group[0].axes[:, 2] for image in group])
    order = np.argsort(heights, kind="stable")
    steps = np.diff(heights[order])
    gaps = steps[steps > SAME_PLACE]
    known = [t for i in group if (t := number(i.header, "SliceThickness")) is not None]
    # Most gaps may be small ones, of slices that were acquired again.
    thickness = min(np.median(known or [0.0]), np.percentile(gaps, 75) if len(gaps) else np.inf)
    cuts = np.flatnonzero(steps > max(SAME_PLACE, SAME_SHARE * thickness)) + 1
    return [
        Plane(float(np.median(heights[part])), tuple(group[i] for i in part))
        for part in np.split(order, cuts)
    ]


def covers(places: Sequence[Plane], planes: Sequence[Plane]) -> bool:
    """Whether ``places`` are a stack of their own beside ``planes``: half the depth and number.

    Heights along normals that differ by `NEAR` degrees are compared by their extent.
    """
    extent = places[-1].height - places[0].height
    depth = planes[-1].height - planes[0].height
    fewest = min(len(planes), max(3, len(planes) / 2))
    return len(places) >= fewest and extent >= 0.5 * depth


def numbers_of(images: Sequence[Image]) -> tuple[int, ...]:
    """Series numbers of images."""
    return tuple(sorted({s for image in images if (s := image.series) is not None}))


def in_words(series: Sequence[int]) -> str:
    """``series 5, 6``; some have no number."""
    return f"series {', '.join(map(str, series))}" if series else "a series without a number"


_CONTRAST = "another contrast"
_NEVER = frozenset({"a map", "a localizer", "a projection"})
"""Contrasts that no user wants as the stack, so the user is not asked about them."""


def choose(images: Sequence[Image], report: DicomReport) -> tuple[list[Plane], list[Group]]:
    """Find the short-axis stack, and report what becomes of all other images.

    Returns its planes in order of height, none if no two are parallel; and the groups that the
    user may mean, the chosen one first, none if the choice is clear.
    """
    alike: list[list[Image]] = []
    for image in images:
        group = next((group for group in alike if _alike(group[0], image)), None)
        if group is None:
            alike.append(group := [])
        group.append(image)
    groups = [Group(tuple(group), _planes(group)) for group in alike]
    groups.sort(key=lambda g: (len(g.planes), len(g.images)), reverse=True)
    candidates = [group for group in groups if len(group.planes) > 1]
    if not candidates:
        report.left_out += [_describe(group, "no plane is parallel to it") for group in groups]
        return [], []
    left, reasons = candidates, []
    for rule, passes in _RULES:
        kept = [group for group in left if passes(group, left)]
        if kept and len(kept) < len(left):
            left = kept
            reasons.append(rule)
    stack = left[0]
    rivals = [g for g in left[1:] if _tilt(stack, g) > NEAR or covers(g.planes, stack.planes)]
    if not stack.oblique:
        # It has won as a film or by its contrast, yet short-axis stacks are oblique.
        others = (g for g in candidates if g.oblique and g.kind not in _NEVER and g not in left)
        rivals += [group for group in others if _tilt(stack, group) > NEAR]
    if not rivals:
        because = "; ".join(reasons) or "no other images are a stack"
        report.decision.append(f"The short axis is {stack}: {because}.")
    left_out: list[LeftOut] = []
    films: list[str] = []
    for other in (group for group in groups if group is not stack):
        reason, tilt = _reason(stack, other), _tilt(stack, other)
        if not reason:
            what = f"{_count(other.planes)} {_difference(stack.images[0], other.images[0])}"
            report.odd.append(LeftOut(what, len(other.images)))
            continue
        left_out.append(_describe(other, reason, tilt))
        if not rivals:
            told = f"Left out: {other}, {reason}, {tilt:.0f} degrees off the stack."
            report.decision.append(told)
            films += [f"the short axis is {stack}, not {other}"] * other.film
    report.left_out += left_out
    report.warnings += [*_views(left_out), *films]
    if stack.processing and not rivals:
        report.warnings.append("the images of the stack are processed (DERIVED), not as acquired")
    return stack.planes, [stack, *rivals] if rivals else []


def _reason(stack: Group, other: Group) -> str:
    """Why a group is left out that is not the stack; empty if it is odd."""
    own = stack.images[0]
    if _tilt(stack, other) > NEAR:
        return "another view"
    if other.kind != stack.kind or not own.contrast.fits(other.images[0].contrast):
        return f"{_CONTRAST} ({other.kind})" if other.kind else _CONTRAST
    if other.processing > stack.processing:
        return "processed images (DERIVED)"
    if covers(other.planes, stack.planes):
        return "another stack"
    return "" if _lacking(stack, other) else "other images near the stack"


def _views(others: Sequence[LeftOut]) -> list[str]:
    """One sentence for views that are left out and one for contrasts."""
    notes = []
    for what in ("view", "contrast"):
        part = [o for o in others if o.reason.startswith(_CONTRAST) == (what == "contrast")]
        if part:
            images = sum(group.images for group in part)
            kinds = sorted({o.reason.removeprefix(_CONTRAST).strip(" ()") for o in part} - {""})
            named = f": {', '.join(kinds)}" if what == "contrast" and kinds else ""
            many = f"{count(len(part), f'other {what}')} {'is' if len(part) == 1 else 'are'}"
            notes.append(f"{many} left out ({images} images){named}")
    return notes


def _many(group: Group, others: Sequence[Group]) -> bool:
    most = max(len(other.planes) for other in others)
    return len(group.planes) >= min(most, max(3, most / 2))


_RULES: tuple[tuple[str, Callable[[Group, Sequence[Group]], bool]], ...] = (
    # Scouts of the whole chest have more planes than a heart.
    ("a film of three slices or more goes before stills", lambda g, left: g.film),
    (
        "a cine goes before other contrasts",
        lambda g, left: not g.kind or not all(other.film for other in left),
    ),
    ("an oblique stack goes before one along the patient's planes", lambda g, left: g.oblique),
    ("it has more slices", _many),
    ("plain images go before other contrasts", lambda g, left: not g.kind),
    (
        "what was acquired goes before what was processed",
        lambda g, left: g.processing == min(other.processing for other in left),
    ),
)
"""Rules that decide between groups, in order: a sentence, and whether a group passes."""


def _lacking(stack: Group, other: Group) -> bool:
    """Whether a stack lacks a slice where nearly parallel images of its kind have one.

    That is within the stack or one gap beyond, and not near a slice that it has. Heights are
    those of the images' centres, about which slices are turned.
    """
    own, there = (
        np.array([_centre(plane.images[0]) @ stack.normal for plane in group.planes])
        for group in (stack, other)
    )
    gap = float(np.median(np.diff(own)))
    away = np.abs(there[:, None] - own).min(axis=1)
    inside = (there > own[0] - 1.5 * gap) & (there < own[-1] + 1.5 * gap)
    counts = sorted((stack.frames, other.frames))
    return bool(np.any(inside & (away > gap / 4))) and counts[1] <= 1.5 * counts[0]


def _centre(image: Image) -> NDArray[np.float64]:
    """RAS+ millimetres of the middle of an image."""
    (rows, columns), (row, column) = image.matrix, image.spacing
    half = np.array([(columns - 1) * column / 2, (rows - 1) * row / 2])
    return np.asarray(image.corner + image.axes[:, :2] @ half)


def unshifted(planes: list[Plane], report: DicomReport) -> list[Plane]:
    """Keep planes that line up in-plane; report others as odd, and warn of small shifts.

    A grid has one in-plane origin, so only shifts up to half a pixel can be ignored.
    """
    shifts = np.array(
        [np.median([i.corner @ i.axes[:, :2] for i in p.images], axis=0) for p in planes]
    )
    away = np.linalg.norm(shifts - np.median(shifts, axis=0), axis=1)
    limit = min(planes[0].images[0].spacing) / 2
    report.odd += [
        LeftOut(f"{_count([p])} is shifted by {mm:.3g} mm within its plane", len(p.images))
        for p, mm in zip(planes, away, strict=True)
        if mm > limit
    ]
    shift = float(away[away <= limit].max(initial=0.0))
    if shift > TOLD:
        report.warnings.append(
            f"slices are shifted in-plane by up to {shift:.2g} mm, which is ignored"
        )
    return [p for p, mm in zip(planes, away, strict=True) if mm <= limit]


def _describe(group: Group, reason: str, tilt: float | None = None) -> LeftOut:
    """A group that is left out, in words that name nobody."""
    return LeftOut(
        reason=reason,
        images=len(group.images),
        planes=len(group.planes),
        frames=max(len(p.images) for p in group.planes),
        matrix=group.images[0].matrix,
        pixel_spacing_mm=group.images[0].spacing,
        angle_deg=None if tilt is None else round(tilt, 2),
        series=group.series,
    )


def _tilt(one: Group, other: Group) -> float:
    """Angle in degrees between two planes, 0 to 90."""
    return float(np.degrees(np.arccos(np.clip(abs(one.normal @ other.normal), 0, 1))))


def _difference(stack: Image, odd: Image) -> str:
    if odd.matrix != stack.matrix:
        own, wanted = ("x".join(map(str, image.matrix)) for image in (odd, stack))
        return f"has a matrix of {own}, not {wanted}"
    if not np.allclose(odd.spacing, stack.spacing, rtol=0.005):
        own, wanted = (" x ".join(f"{s:.4g}" for s in image.spacing) for image in (odd, stack))
        return f"has pixels of {own} mm, not {wanted} mm"
    return f"is turned by {turn(stack.axes, odd.axes):.1f} degrees"


def _count(places: Sequence[Plane]) -> str:
    images = [image for place in places for image in place.images]
    series = numbers_of(images)
    named = f", {in_words(series)}" if series else ""
    slices = "1 slice" if len(places) == 1 else f"A group of {len(places)} slices"
    return f"{slices} ({count(len(images), 'image')}{named})"
