"""Takes of a slice: frames of its film are of one acquisition, never of two.

A slice may have been acquired again, because the first take was bad or under stress. Of several
takes, what was acquired goes before what was processed, a complete take before one of another
number of frames than other slices have, and the newest before others. If most of the stack was
acquired again, it is for the user to say which one is meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

import numpy as np

from calid.io.dicom_fields import moment, number, text
from calid.io.dicom_group import Plane, covers, in_words, numbers_of
from calid.io.dicom_read import Image
from calid.io.dicom_report import DicomReport, LeftOut
from calid.io.dicom_time import Reading, find_clock, moment_of
from calid.words import count

__all__ = ["best_takes"]

APART = 3.0
"""Seconds between two acquisitions that are not of one breath-hold."""


def best_takes(
    planes: Sequence[Plane], report: DicomReport
) -> tuple[list[Plane], tuple[tuple[int, ...], ...]]:
    """Choose a take of every slice, and report the others.

    Returns
    -------
    planes
        With the images of that take.
    twice
        Series numbers of two takes of the whole stack, that of the better ones first; empty if
        there is but one.
    """
    clock, reading, _ = find_clock(planes)
    every = [_takes(plane.images, reading if clock else None) for plane in planes]
    counts = Counter(size for takes in every for size in {len(take) for take in takes})
    usual = max(counts, key=lambda n: (counts[n], n), default=0)
    found: list[Plane] = []
    again: list[tuple[Plane, list[Image], list[Image]]] = []
    for plane, takes in zip(planes, every, strict=True):
        best, *others = _best_first(takes, usual)
        height = plane.height
        if others:
            height = float(np.median([i.corner @ planes[0].images[0].axes[:, 2] for i in best]))
        found.append(Plane(height, tuple(best)))
        for other in others:
            if len(other) >= usual / 2 and _processed(other) == _processed(best):
                again.append((plane, best, other))
        _supersede(best, others, f"slice at {plane.height - planes[0].height:.1f} mm", report)
    repeated = list(dict.fromkeys(plane for plane, *_ in again))
    if repeated and (len(repeated) == len(planes) or covers(repeated, planes)):
        sides = zip(*((best, other) for _, best, other in again), strict=True)
        return found, tuple(numbers_of([i for take in side for i in take]) for side in sides)
    return found, ()


def _supersede(
    best: list[Image], others: Sequence[list[Image]], where: str, report: DicomReport
) -> None:
    """Leave out all takes of a slice but one, and say so."""
    for other in others:
        if _processed(other) > _processed(best):
            reason, why = "processed images (DERIVED) of a slice that is there as acquired", ""
        elif len(other) != len(best):
            reason, why = "a take of a slice with fewer or more frames", "the complete one"
        else:
            reason, why = "an earlier take of a slice", "the newest"
        series = numbers_of(other)
        report.left_out.append(LeftOut(reason, len(other), 1, len(other), series=series))
        report.warnings.append(
            f"the {where} was acquired {len(others) + 1} times: {_take(best)} is used, {why}; "
            f"{_take(other)} is left out"
            if why
            else f"the {where}: {_take(other)} is left out: {reason}"
        )


def _take(images: Sequence[Image]) -> str:
    return f"{in_words(numbers_of(images))} ({count(len(images), 'image')})"


def _best_first(takes: Sequence[list[Image]], usual: int) -> list[list[Image]]:
    """Takes of a slice, the best first."""
    dated = all(_span(take, _moment) for take in takes)

    def merit(take: list[Image]) -> tuple[float, ...]:
        complete = len(take) == usual
        start = _span(take, _moment) if dated else None
        return (
            -_processed(take),
            complete,
            *(() if complete else (len(take),)),
            start[0] if start else 0.0,
            *max(map(_number, take)),
        )

    return sorted(takes, key=merit, reverse=True)


def _processed(take: Sequence[Image]) -> int:
    return max(image.processing for image in take)


def _takes(images: Sequence[Image], reading: Reading | None) -> list[list[Image]]:
    """Images of one place by the acquisition that they are of.

    Series are different takes if their times overlap, or if they were acquired apart: a take may
    be stored as one series a phase. Within a series, takes are told apart by acquisition number,
    by acquisition time, or by instance numbers in whose order the time begins anew. A still has
    one image, so that every other is another take.
    """
    if reading is None:
        return [[image] for image in images]
    parts = _parts(images, lambda i: (text(i.header, "SeriesInstanceUID"), i.processing))
    takes: list[list[Image]] = []
    for part in sorted(parts, key=len, reverse=True):
        same = (take for take in takes if _continue(take, part, reading))
        if (take := next(same, None)) is not None:
            take += part
        else:
            takes.append(part)
    if len(images) == 2 and len(parts) == 2 and len(takes) == 1:
        # Two phases, or one that was repeated: only the time of acquisition can tell.
        takes = takes if _span(images, _moment) else parts
    return [part for take in takes for part in _within(take, reading)]


def _continue(one: Sequence[Image], other: Sequence[Image], reading: Reading) -> bool:
    """Whether images of two series are phases of one take."""
    if _processed(one) != _processed(other) or _overlap(one, other, reading):
        return False
    first, second = (_span(part, _moment) for part in (one, other))
    if first is None or second is None:
        return True
    return max(first[0], second[0]) - min(first[1], second[1]) <= APART


def _overlap(one: Sequence[Image], other: Sequence[Image], reading: Reading) -> bool:
    first, second = (_span(part, reading) for part in (one, other))
    return not (first and second) or (first[0] <= second[1] and second[0] <= first[1])


def _span(images: Sequence[Image], reading: Reading) -> tuple[float, float] | None:
    values = [value for image in images if (value := reading(image)) is not None]
    return (min(values), max(values)) if len(values) == len(images) else None


def _within(take: list[Image], reading: Reading) -> list[list[Image]]:
    """The takes within one series."""
    keys: tuple[Callable[[Image], Hashable], ...] = (
        lambda image: image.member.label,
        lambda image: number(image.header, "AcquisitionNumber"),
        _breath_holds(take),
        _rounds(take, reading),
    )
    for key in keys:
        parts = _parts(take, key)
        times = [{moment_of(image, reading) for image in part} for part in parts]
        whole = all(len(t) == len(part) > 1 for t, part in zip(times, parts, strict=True))
        if len(parts) > 1 and whole:
            ordered = sorted(parts, key=lambda part: _span(part, reading) or (0.0, 0.0))
            if all(_overlap(a, b, reading) for a, b in pairwise(ordered)):
                return parts
    return [take]


def _breath_holds(take: Sequence[Image]) -> Callable[[Image], Hashable]:
    """Number the acquisitions of a take that are apart from each other."""
    known = sorted(m for image in take if (m := _moment(image)) is not None)
    starts = [b for a, b in pairwise(known) if b - a > APART] if len(known) == len(take) else []
    return lambda image: sum((moment(image.header) or 0.0) >= start for start in starts)


def _rounds(take: Sequence[Image], reading: Reading) -> Callable[[Image], Hashable]:
    """Number the rounds in which time runs once from its beginning to its end.

    Instance numbers may be in any order, so that few images, or rounds of unequal length unless
    all hold the same times, tell nothing.
    """
    order = sorted(take, key=_number)
    times = [moment_of(image, reading) for image in order]
    starts = [0, *(n for n, (a, b) in enumerate(pairwise(times), 1) if b <= a), len(times)]
    rounds = [times[a:b] for a, b in pairwise(starts)]
    if min(map(len, rounds)) < 4 and any(r != rounds[0] for r in rounds):
        return lambda image: 0
    of = {image: sum(n >= start for start in starts) for n, image in enumerate(order)}
    return of.__getitem__


def _parts(images: Sequence[Image], key: Callable[[Image], Hashable]) -> list[list[Image]]:
    parts: dict[Hashable, list[Image]] = {}
    for image in images:
        parts.setdefault(key(image), []).append(image)
    return list(parts.values())


def _moment(image: Image) -> float | None:
    return moment(image.header)


def _number(image: Image) -> tuple[float, ...]:
    keywords = ("SeriesNumber", "AcquisitionNumber", "InstanceNumber")
    return tuple(number(image.header, keyword) or 0.0 for keyword in keywords)
