"""Images of an exam in groups: one orientation, matrix, pixel spacing and contrast each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from calid.io.dicom_fields import TRIGGERS, first_number, number
from calid.io.dicom_read import Image
from calid.words import count

__all__ = [
    "NEAR",
    "SAME_PLACE",
    "TOLD",
    "Group",
    "Plane",
    "covers",
    "in_words",
    "make_groups",
    "numbers_of",
    "turn",
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


@dataclass(frozen=True, eq=False)
class Group:
    """Images of one orientation, matrix, pixel spacing and contrast.

    Parameters
    ----------
    images
        In no order.
    planes
        The same by height.
    """

    images: tuple[Image, ...]
    planes: list[Plane]

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

    def fits(self, other: Group) -> bool:
        """Whether the contrast of both is the same, as far as headers tell."""
        return self.images[0].contrast.fits(other.images[0].contrast)

    def __str__(self) -> str:
        """Name it by what names nobody."""
        angle, plane = self.tilt
        kinds = [self.kind] * bool(self.kind) + ["DERIVED"] * bool(self.processing)
        return (
            f"{in_words(numbers_of(self.images))} ({count(len(self.planes), 'slice')} of "
            f"{count(self.frames, 'frame')}, {angle:.0f} degrees off the {plane} plane"
            f"{''.join(f', {kind}' for kind in kinds)})"
        )


def make_groups(images: Sequence[Image]) -> list[Group]:
    """Put images together that are alike, in no order."""
    groups: list[list[Image]] = []
    for image in images:
        for group in groups:
            if _alike(group[0], image):
                group.append(image)
                break
        else:
            groups.append([image])
    return [Group(tuple(group), _planes(group)) for group in groups]


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
    normal = group[0].axes[:, 2]
    heights = np.array([image.corner @ normal for image in group])
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
    """Whether planes are a stack of their own beside others: most of the depth, half as many.

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
