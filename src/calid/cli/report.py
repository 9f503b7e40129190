"""What the command line adds to a report: the run's warnings, and the command; no paths."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import calid
from calid.cli.console import each_warning
from calid.errors import CalidError, CalidWarning

if TYPE_CHECKING:
    from calid.evaluation.selfcheck import SelfCheck
    from calid.inference.options import Answer
    from calid.report.measures import Volumes

__all__ = ["again", "examined", "warnings_noted", "without_paths"]

T = TypeVar("T")


@contextmanager
def warnings_noted() -> Iterator[list[str]]:
    """Keep the text of the package's warnings, and show them as before."""
    notes: list[str] = []

    def note(message: str, category: type[Warning]) -> bool:
        if issubclass(category, CalidWarning):
            notes.append(message)
        return False

    with each_warning(note):
        yield notes


def without_paths(text: str, paths: Mapping[str, Path]) -> str:
    """A text in which names, ``INPUT`` and so on, stand for paths, however they are written."""
    words: dict[str, str] = {}
    for name, path in paths.items():
        full = path.absolute()
        spellings = (str(path), str(full), path.as_posix(), str(path.resolve()), full.name)
        for spelling in (*spellings, full.name.split(".")[0]):
            if spelling:
                words.setdefault(spelling, name)
    longest = sorted(words, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest))
    return re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", lambda found: words[found[0]], text)


def again(
    generation: calid.Generation,
    reading: calid.Reading,
    settings: Mapping[str, Any],
    uncertainty: bool,
) -> str:
    """The command that makes a volume again, with all that was decided (the record's settings)."""
    options: dict[str, object] = {
        "factor": generation.factor,
        "spacing": generation.spacing,
        **settings,
        "frames_together": None,
        "whole_heartbeat": None,
        "weights": "WEIGHTS" if generation.weights else None,
        "uncertainty": "UNCERTAINTY" if uncertainty else None,
    }
    for field in dataclasses.fields(reading):
        value = getattr(reading, field.name)
        options[field.name] = None if value == field.default else value
    words = [f"--{n.replace('_', '-')} {v}" for n, v in options.items() if v is not None]
    words += ["--frame-by-frame"] if generation.frame_by_frame else []
    words += ["--fix-shifts"] if generation.fix_shifts else []
    words += ["--region whole"] if generation.region == "whole" else []
    return " ".join(["calid reconstruct INPUT OUTPUT", *words])


def examined(
    stack: calid.SliceStack,
    volume: calid.Volume,
    model: calid.Model,
    answer: Answer,
    on_part: Callable[[int], None],
) -> tuple[SelfCheck | str, Volumes | str]:
    """Check the model on the stack itself and measure volumes; if a part fails, say why.

    ``on_part`` is called with the number of parts done, 1 or 2.
    """
    from calid.evaluation.methods import averaged
    from calid.evaluation.selfcheck import self_check
    from calid.report.measures import measured
    from calid.segmentation.segment import load_segmenter

    def attempt(work: Callable[[], T], part: int) -> T | str:
        try:
            return work()
        except CalidError as error:
            return error.rule
        finally:
            on_part(part)

    row, column = volume.centre
    centre = (row + 0.5) / stack.shape[2], (column + 0.5) / stack.shape[3]
    check = attempt(lambda: self_check(stack, averaged(model, answer), centre), 1)
    segmenter = load_segmenter(model.device.type)
    return check, attempt(lambda: measured(stack, volume, segmenter), 2)
