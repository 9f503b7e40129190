"""Which images of a slice form one film, in which order, and the time of each phase.

All frames of a film come from one acquisition (a take). Of several takes of a slice, an acquired
one is preferred to a processed one, then a take with as many frames as most slices have, then the
newest. If most of the stack was acquired again, the user has to choose.

`_CLOCKS` lists the fields that can order frames, best first; fields that only rank frames need
the length of the cycle. A field is used if every image has it and it distinguishes the images of
most slices.

Slices are acquired in different heartbeats, so trigger times of the same phase differ a
little between them: phases are matched by rank, and each gets the median of its times. Slices of
another number of frames are matched by trigger time (`calid.io.dicom_resample`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calid.io.dicom_fields import TRIGGERS, first_number, moment, number, text
from calid.io.dicom_images import DicomReport, Image, LeftOut
from calid.io.dicom_resample import Timing, resampling
from calid.io.dicom_stack import SAME_PLACE, Plane, covers, in_words, numbers_of
from calid.io.heartbeat import ASSUMED, assumed_step, time_scale
from calid.words import count

__all__ = ["Cine", "best_takes", "film"]

Reading = Callable[[Image], float | None]


class Clock(NamedTuple):
    """A field that orders frames."""

    name: str
    reading: Reading
    ranks: bool = False  # whether it tells no time but mere ranks


def _first(*keywords: str, scale: float = 1.0) -> Reading:
    def read(image: Image) -> float | None:
        value = first_number(image.header, *keywords)
        return None if value is None else value * scale

    return read


def _frame_time(image: Image) -> float | None:
    step = number(image.header, "FrameTime")
    return None if step is None or not image.multiple else image.frame * step / 1000


def _instance(image: Image) -> float | None:
    value = number(image.header, "InstanceNumber")
    return None if value is None else value + image.frame / 1e6


_TRIGGER = _first(*TRIGGERS, scale=1e-3)
_POSITION = _first("TemporalPositionIndex", "TemporalPositionIdentifier")
_CLOCKS = (
    Clock("trigger time", _TRIGGER),
    Clock("temporal position offset", _first("TemporalPositionTimeOffset")),
    Clock("frame time", _frame_time),
    Clock("temporal position", _POSITION, ranks=True),
    Clock("instance number", _instance, ranks=True),
)
_NO_CLOCK = Clock("", lambda image: 0.0)
_CYCLE = _first(
    "NominalInterval", "RRIntervalTimeNominal", "CardiacRRIntervalSpecified", scale=1e-3
)


@dataclass(frozen=True, eq=False)
class Cine:
    """Slices whose frames are in order."""

    heights: NDArray[np.float64]  # (slices,), mm along the normal
    images: list[list[Image]]  # images[slice][frame], as many as were acquired
    times: NDArray[np.float64]  # (frames,), seconds
    cycle: float | None = None  # seconds, if known beside the times
    # Of slices to be resampled, by number: the share of each own frame in each frame of the film.
    shares: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)


def film(planes: Sequence[Plane], report: DicomReport) -> Cine:
    """Put the images of every slice in order of time, and leave out what does not fit.

    Slices are odd if they have several images at one time, if their images do not lie in one
    plane, or if they have an unusual number of frames that trigger times cannot resample.
    """
    clock = _find_clock(planes)
    usual = _usual(len(plane.images) for plane in planes)
    uneven = any(len(plane.images) != usual for plane in planes)
    timed = planes if uneven and clock.reading is _TRIGGER else ()
    most = [_timing(plane.images) for plane in timed if len(plane.images) == usual]
    normal = planes[0].images[0].axes[:, 2]
    slices: list[tuple[float, list[Image]]] = []
    shares: dict[int, NDArray[np.float64]] = {}
    resampled: list[str] = []
    for plane in planes:
        moments = {image: _moment_of(image, clock.reading) for image in plane.images}
        images = sorted(plane.images, key=lambda image: moments[image])
        surplus = len(images) - len(set(moments.values()))
        heights = [float(image.corner @ normal) for image in images]
        series = numbers_of(images)
        named = f" ({in_words(series)})" if series else ""
        name = f"slice at {plane.height - planes[0].height:.1f} mm{named}"
        if surplus:
            others = "others" if surplus > 1 else "another"
            what = f"has {count(surplus, 'image')} of the same time as {others}"
        elif np.ptp(heights) > SAME_PLACE:
            what = f"has images up to {np.ptp(heights):.2g} mm apart"
        elif len(images) == usual:
            slices.append((float(np.median(heights)), images))
            continue
        elif (found := resampling(_timing(images), most)) is not None:
            shares[len(slices)] = found
            resampled.append(f"the {name} has {len(images)} frames")
            slices.append((float(np.median(heights)), images))
            continue
        else:
            what = f"has {len(images)} frames, not {usual}"
        report.odd.append(LeftOut(f"The {name} {what}", len(images)))
    if resampled:
        report.warnings.append(
            f"{', '.join(resampled)}; resampled in cardiac phase to {usual}, as most slices have. "
            "What was acquired of these slices is not kept bit for bit"
        )
    chosen = [images for _, images in slices]
    like_most = [images for images in chosen if len(images) == usual]
    times, report.time_spread_s = _times(like_most, clock, usual, report.warnings)
    report.time_from = clock.name
    # Times that were computed from the cycle do not say how much of it the frames cover.
    cycle = None if clock.ranks else _cycle(chosen)
    return Cine(np.array([height for height, _ in slices]), chosen, times, cycle, shares)


def _timing(images: Sequence[Image]) -> Timing:
    times = sorted(_moment_of(image, _TRIGGER) for image in images)
    return Timing(np.array(times), _cycle([images]))


def _usual(sizes: Iterable[int]) -> int:
    """The most frequent size; the largest of equally frequent ones, 0 of none."""
    counts = Counter(sizes)
    return max(counts, key=lambda size: (counts[size], size), default=0)


def _find_clock(planes: Sequence[Plane]) -> Clock:
    """What to go by; `_NO_CLOCK` of stills."""
    sizes = sorted(len(plane.images) for plane in planes)
    if sizes[len(sizes) // 2] == 1:
        return _NO_CLOCK
    return next((clock for clock in _CLOCKS if _tells(planes, clock.reading)), _NO_CLOCK)


def _tells(planes: Sequence[Plane], reading: Reading) -> bool:
    """Whether a field distinguishes images in most slices that have several."""
    votes = []
    for plane in (p for p in planes if len(p.images) > 1):
        values = {reading(image) for image in plane.images}
        if None in values:
            return False
        series = {text(image.header, "SeriesInstanceUID") for image in plane.images}
        # Instance numbers count within a series only.
        votes.append(len(values) > 1 and not (reading is _instance and len(series) > 1))
    return 2 * sum(votes) > len(votes)


def _moment_of(image: Image, reading: Reading) -> float:
    """The time that a field tells, rounded so that equal times compare equal."""
    return round(reading(image) or 0.0, 6)


def _times(
    slices: list[list[Image]], clock: Clock, frames: int, notes: list[str]
) -> tuple[NDArray[np.float64], float]:
    """Seconds of every phase and their spread; what the user has to know goes to the notes."""
    if not slices:
        return np.zeros(0), 0.0
    if clock is _NO_CLOCK:
        known = [time for images in slices if (time := _TRIGGER(images[0])) is not None]
        return np.array([float(np.median(known or [0.0]))]), 0.0
    if not clock.ranks:
        table = np.array([[clock.reading(image) or 0.0 for image in images] for images in slices])
        said = np.asarray(np.median(table, axis=0))
        times = _believable(said, notes)
        table *= np.ptp(times) / (np.ptp(said) or 1.0)
        steps = np.diff(times)
        if len(steps) and steps.max() > 1.5 * steps.min():
            notes.append(
                f"frames are {steps.min():.3g} to {steps.max():.3g} s apart; is a frame missing?"
            )
        return times, float(np.ptp(table, axis=0).max())
    if clock.reading is _instance:
        notes.append(
            "no field tells the time of the frames; they are in the order of InstanceNumber"
        )
    cycle = _cycle(slices)
    if cycle is None:
        notes.append(f"the length of the heart cycle is not known; {ASSUMED:g} s is used")
    return _believable(np.arange(frames) * (cycle or ASSUMED) / frames, notes), 0.0


def _cycle(slices: Sequence[Sequence[Image]]) -> float | None:
    """Seconds of a heart cycle, the median over the slices that tell it."""
    cycles = [c for images in slices if (c := _CYCLE(images[0])) is not None and c > 0]
    rates = [r for images in slices if (r := number(images[0].header, "HeartRate")) and r > 0]
    known = cycles or [60 / rate for rate in rates]
    return float(np.median(known)) if known else None


def _believable(times: NDArray[np.float64], notes: list[str]) -> NDArray[np.float64]:
    """Times that increase as a heart can have them."""
    frames = len(times)
    if frames < 2:
        return times
    scale, note = time_scale(float(times[-1] - times[0]) / (frames - 1), frames)
    notes += [note] * bool(note)
    if scale is None:
        return np.arange(frames) * np.float64(assumed_step(frames))
    return times * scale


APART = 3.0
"""Acquisitions more than this many seconds apart are not from one breath-hold."""


def best_takes(
    planes: Sequence[Plane], report: DicomReport
) -> tuple[list[Plane], tuple[tuple[int, ...], ...]]:
    """Keep the best take of each plane, and report the others.

    Also returns the series numbers of two takes of the whole stack, the better one first; empty if
    there is only one.
    """
    clock = _find_clock(planes)
    every = [_takes(plane.images, clock) for plane in planes]
    usual = _usual(size for takes in every for size in set(map(len, takes)))
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


def _takes(images: Sequence[Image], clock: Clock) -> list[list[Image]]:
    """Group the images of one place by acquisition.

    Series are different takes if their times overlap or if they were acquired apart; otherwise one
    take may be stored as one series per phase. Within a series, takes differ in acquisition number
    or acquisition time, or the time restarts in the order of instance numbers. A still has one
    image, so every further image is another take.
    """
    if clock is _NO_CLOCK:
        return [[image] for image in images]
    parts = _parts(images, lambda i: (text(i.header, "SeriesInstanceUID"), i.processing))
    takes: list[list[Image]] = []
    for part in sorted(parts, key=len, reverse=True):
        same = (take for take in takes if _continue(take, part, clock.reading))
        if (take := next(same, None)) is not None:
            take += part
        else:
            takes.append(part)
    if len(images) == 2 and len(parts) == 2 and len(takes) == 1:
        # Two phases, or one that was repeated: only the time of acquisition can tell.
        takes = takes if _span(images, _moment) else parts
    return [part for take in takes for part in _within(take, clock.reading)]


def _continue(one: Sequence[Image], other: Sequence[Image], reading: Reading) -> bool:
    """Whether images of two series are phases of one take."""
    if _processed(one) != _processed(other) or _overlap(one, other, reading):
        return False
    first, second = _span(one, _moment), _span(other, _moment)
    if first is None or second is None:
        return True
    return max(first[0], second[0]) - min(first[1], second[1]) <= APART


def _overlap(one: Sequence[Image], other: Sequence[Image], reading: Reading) -> bool:
    first, second = _span(one, reading), _span(other, reading)
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
        times = [{_moment_of(image, reading) for image in part} for part in parts]
        whole = all(len(t) == len(part) > 1 for t, part in zip(times, parts, strict=True))
        if len(parts) > 1 and whole:
            ordered = sorted(parts, key=lambda part: _span(part, reading) or (0.0, 0.0))
            if all(_overlap(a, b, reading) for a, b in pairwise(ordered)):
                return parts
    return [take]


def _breath_holds(take: Sequence[Image]) -> Callable[[Image], Hashable]:
    """A key that numbers the acquisitions of a take that are apart in time."""
    known = sorted(m for image in take if (m := _moment(image)) is not None)
    starts = [b for a, b in pairwise(known) if b - a > APART] if len(known) == len(take) else []
    return lambda image: sum((_moment(image) or 0.0) >= start for start in starts)


def _rounds(take: Sequence[Image], reading: Reading) -> Callable[[Image], Hashable]:
    """A key that numbers the rounds of increasing time, in the order of instance numbers.

    Instance numbers may be in any order, so rounds of fewer than four images do not count unless
    all rounds hold the same times.
    """
    order = sorted(take, key=_number)
    times = [_moment_of(image, reading) for image in order]
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
