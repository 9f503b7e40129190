"""Which image of a slice belongs to which phase, and when that is.

Fields that can tell the time, the best first: the trigger time; the offset of a temporal
position; the frame time of a multi-frame file; then mere ranks, which need the length of the
cycle: the temporal position, and last, with a warning, the instance number. A field is used
if every image has it and it tells the images of most slices apart.

Slices are acquired in different heartbeats, so trigger times of the same phase differ a
little between them: phases are matched by rank, and each gets the median of its times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calid.io.dicom_fields import TRIGGERS, first_number, number, text
from calid.io.dicom_group import SAME_PLACE, Plane, in_words, numbers_of
from calid.io.dicom_read import Image
from calid.io.dicom_report import DicomReport, LeftOut
from calid.io.heartbeat import ASSUMED, assumed_step, time_scale
from calid.words import count

__all__ = ["Film", "Reading", "film", "find_clock", "moment_of"]

Reading = Callable[[Image], float | None]


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
_TIMES: tuple[tuple[str, Reading], ...] = (
    ("trigger time", _TRIGGER),
    ("temporal position offset", _first("TemporalPositionTimeOffset")),
    ("frame time", _frame_time),
)
_RANKS: tuple[tuple[str, Reading], ...] = (
    ("temporal position", _first("TemporalPositionIndex", "TemporalPositionIdentifier")),
    ("instance number", _instance),
)
_CYCLE = _first(
    "NominalInterval", "RRIntervalTimeNominal", "CardiacRRIntervalSpecified", scale=1e-3
)


@dataclass(frozen=True, eq=False)
class Film:
    """Slices whose frames are in order.

    Parameters
    ----------
    heights
        Shape ``(slices,)``, mm along the normal.
    images
        ``images[slice][frame]``.
    times
        Shape ``(frames,)``, seconds.
    """

    heights: NDArray[np.float64]
    images: list[list[Image]]
    times: NDArray[np.float64]


def film(planes: Sequence[Plane], report: DicomReport) -> Film:
    """Put the images of every slice in order of time, and leave out what does not fit.

    Odd are: slices with several images at one time, slices whose images do not lie in one plane,
    and slices with another number of frames than most.
    """
    clock, reading, ranks = find_clock(planes)
    counts = Counter(len(plane.images) for plane in planes)
    usual = max(counts, key=lambda n: (counts[n], n), default=0)
    normal = planes[0].images[0].axes[:, 2]
    slices: list[tuple[float, list[Image]]] = []
    for plane in planes:
        images = sorted(plane.images, key=lambda image: moment_of(image, reading))
        surplus = len(images) - len({moment_of(image, reading) for image in images})
        heights = [float(image.corner @ normal) for image in images]
        if surplus:
            others = "others" if surplus > 1 else "another"
            what = f"has {count(surplus, 'image')} of the same time as {others}"
        elif np.ptp(heights) > SAME_PLACE:
            what = f"has images up to {np.ptp(heights):.2g} mm apart"
        elif len(images) != usual:
            what = f"has {len(images)} frames, not {usual}"
        else:
            slices.append((float(np.median(heights)), images))
            continue
        series = numbers_of(images)
        named = f" ({in_words(series)})" if series else ""
        name = f"The slice at {plane.height - planes[0].height:.1f} mm{named}"
        report.odd.append(LeftOut(f"{name} {what}", len(images)))
    chosen = [images for _, images in slices]
    times, spread = _times(chosen, reading, ranks, clock, usual, report.warnings)
    report.time_from, report.time_spread_s = clock, spread
    return Film(np.array([height for height, _ in slices]), chosen, times)


def find_clock(planes: Sequence[Plane]) -> tuple[str, Reading, bool]:
    """Name of the field to go by, how to read it, and whether it only ranks."""
    sizes = sorted(len(plane.images) for plane in planes)
    if sizes[len(sizes) // 2] > 1:
        for ranks, fields in ((False, _TIMES), (True, _RANKS)):
            for name, reading in fields:
                # Numbers of images count within a series only.
                within = name == "instance number"
                if _tells(planes, reading, within):
                    return name, reading, ranks
    return "", lambda image: 0.0, False


def _tells(planes: Sequence[Plane], reading: Reading, within: bool) -> bool:
    """Whether a field tells the images of most slices apart that have several."""
    votes = []
    for plane in (p for p in planes if len(p.images) > 1):
        values = {reading(image) for image in plane.images}
        if None in values:
            return False
        series = {text(image.header, "SeriesInstanceUID") for image in plane.images}
        votes.append(len(values) > 1 and not (within and len(series) > 1))
    return 2 * sum(votes) > len(votes)


def moment_of(image: Image, reading: Reading) -> float:
    """The time that a field tells, rounded, so that equal times are equal."""
    return round(reading(image) or 0.0, 6)


def _times(
    slices: list[list[Image]],
    reading: Reading,
    ranks: bool,
    clock: str,
    frames: int,
    notes: list[str],
) -> tuple[NDArray[np.float64], float]:
    """Seconds of every phase and their spread; what the user has to know goes to the notes."""
    if not slices:
        return np.zeros(0), 0.0
    if not clock:
        known = [time for images in slices if (time := _TRIGGER(images[0])) is not None]
        return np.array([float(np.median(known or [0.0]))]), 0.0
    if not ranks:
        table = np.array([[reading(image) or 0.0 for image in images] for images in slices])
        said = np.asarray(np.median(table, axis=0))
        times = _believable(said, notes)
        table *= np.ptp(times) / (np.ptp(said) or 1.0)
        steps = np.diff(times)
        if len(steps) and steps.max() > 1.5 * steps.min():
            notes.append(
                f"frames are {steps.min():.3g} to {steps.max():.3g} s apart; is a frame missing?"
            )
        return times, float(np.ptp(table, axis=0).max())
    if clock == "instance number":
        notes.append(
            "no field tells the time of the frames; they are in the order of InstanceNumber"
        )
    cycles = [c for images in slices if (c := _CYCLE(images[0])) is not None and c > 0]
    rates = [r for images in slices if (r := number(images[0].header, "HeartRate")) and r > 0]
    if not cycles:
        cycles = [60 / rate for rate in rates]
    if not cycles:
        notes.append(f"the length of the heart cycle is not known; {ASSUMED:g} s is used")
    cycle = float(np.median(cycles or [ASSUMED]))
    return _believable(np.arange(frames) * cycle / frames, notes), 0.0


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
