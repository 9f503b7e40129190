"""Running a protocol: every case, every method, every figure."""

from __future__ import annotations

import hashlib
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from calid.baselines.rules import Method
from calid.errors import CalidError, CalidWarning, DataError
from calid.inference.model import FEWEST_FRAMES
from calid.io.atomic import atomic, check_folder

__all__ = [
    "Case",
    "Contender",
    "Evaluation",
    "Figures",
    "Protocol",
    "Row",
    "Sampler",
    "evaluate",
    "kept_answer",
]

EXAMPLES = 2

Figures = Mapping[str, NDArray[np.float64]]
"""Figures by metric: one per target, or one per case. Means leave out NaN and infinity."""


@dataclass(frozen=True)
class Case:
    """One stack, made sparse: what a method is given, and what its answer is compared with.

    Parameters
    ----------
    subject, name
        Names of the subject and of this stack.
    images
        What the method sees, ``(frames, slices, height, width)``, window units.
    positions
        Positions of the slices, ``(slices,)``, mm, increasing.
    targets
        Positions to answer at, ``(targets,)``, mm, increasing, strictly between slices.
    truth
        The true images, ``(frames, targets, height, width)``, window units.
    spacing
        In-plane ``(row, column)`` spacing in mm.
    labels, truth_labels
        Manual labels of ``images`` and of ``truth``, uint8; None if there are none.
    groups
        Ways to split the results: one value per target, by name.
    """

    subject: str
    name: str
    images: NDArray[np.float32]
    positions: NDArray[np.float64]
    targets: NDArray[np.float64]
    truth: NDArray[np.float32]
    spacing: tuple[float, float]
    labels: NDArray[np.uint8] | None = None
    truth_labels: NDArray[np.uint8] | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """A method that takes part.

    Parameters
    ----------
    name
        Name of its row.
    method
        The method itself.
    identity
        Text that changes whenever its answers would: name, code, hashes of weights, settings.
    settings
        How it samples, for the record.
    film
        For methods that take whole films: like `method`, with a leading axis of frames on
        images and answer.
    """

    name: str
    method: Method
    identity: str
    settings: Mapping[str, object] = field(default_factory=dict)
    film: Method | None = None

    def answer(self, case: Case) -> NDArray[np.float32]:
        """The answer to a case, ``(frames, targets, height, width)``.

        A method that takes whole films gets all frames at once, any other one frame at a time.
        """
        asked = case.positions, case.targets, case.spacing
        if self.film is not None and len(case.images) >= FEWEST_FRAMES:
            return self.film(case.images, *asked)
        return np.stack([self.method(images, *asked) for images in case.images])


@dataclass(frozen=True)
class Sampler(Contender):
    """A method whose samples are kept apart, not averaged.

    Its `method` returns a leading axis of samples: ``(samples, targets, height, width)``.
    """

    def answer(self, case: Case) -> NDArray[np.float32]:
        """All samples of a case's first frame, in place of the frames."""
        return self.method(case.images[0], case.positions, case.targets, case.spacing)


@dataclass(frozen=True)
class Protocol:
    """How cases are made and answers are judged.

    Parameters
    ----------
    name
        As on the command line.
    load
        Makes a case from a file. A `CalidError` leaves the file out, with a warning.
    score
        Computes figures of an answer ``(frames, targets, height, width)``.
    columns
        Metrics of the table, in order; all others are only in the CSV.
    headline
        Metrics whose paired differences from linear are shown.
    lower_is_better
        Metrics for which lower is better.
    ceilings
        Rows that see the truth and do not compete: functions from case to answer, by name.
    goal
        Ceiling to which the tables count the share of the way from linear.
    combine
        Computes further figures of a subject from those of its cases, given by case name.
    """

    name: str
    load: Callable[[Path], Case]
    score: Callable[[Case, NDArray[np.float32]], Figures]
    columns: tuple[str, ...]
    headline: tuple[str, ...]
    lower_is_better: frozenset[str] = frozenset()
    ceilings: Mapping[str, Callable[[Case], NDArray[np.float32]]] = field(default_factory=dict)
    goal: str | None = None
    combine: Callable[[Mapping[str, Figures]], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Row:
    """Figures of one method on one case."""

    subject: str
    case: str
    figures: Figures
    groups: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Evaluation:
    """What a protocol found.

    Parameters
    ----------
    rows
        Method to its rows.
    targets
        Number of images that were compared.
    truths, answers
        Lowest, middle and highest target of a few cases, ``(frames, targets, height, width)``,
        and every method's answers; fewer where there are fewer.
    """

    rows: Mapping[str, Sequence[Row]]
    targets: int
    truths: list[NDArray[np.float32]]
    answers: dict[str, list[NDArray[np.float32]]]


def evaluate(
    protocol: Protocol,
    files: Sequence[Path],
    contenders: Sequence[Contender],
    predictions: Path,
    on_answer: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Run a protocol.

    Parameters
    ----------
    files
        One case each.
    contenders
        In the order of the table.
    predictions
        Folder where answers are kept, see `kept_answer`: an evaluation that was stopped goes on
        from there.
    on_answer
        Called with the number of pairs of file and method that are done or left out.

    Raises
    ------
    DataError
        If no file makes a case. Those that do not are left out with a warning.
    """
    answering: dict[str, Callable[[Case], NDArray[np.float32]]] = {
        **{c.name: partial(kept_answer, c, folder=predictions) for c in contenders},
        **protocol.ceilings,
    }
    rows: dict[str, list[Row]] = {name: [] for name in answering}
    truths: list[NDArray[np.float32]] = []
    answers: dict[str, list[NDArray[np.float32]]] = {name: [] for name in answering}
    targets, stride = 0, max(1, len(files) // EXAMPLES)
    seen: set[tuple[str, str]] = set()
    reason = "there is none"
    for number, path in enumerate(files):
        done = number * len(answering)
        try:
            case = protocol.load(path)
            if (case.subject, case.name) in seen:
                raise DataError(
                    path,
                    f"There has been a {case.name} of subject {case.subject} before it.",
                    "Name files SUBJECT_ANYTHING.nii.gz, each otherwise.",
                )
        except CalidError as error:
            warnings.warn(f"left out: {error}", CalidWarning, stacklevel=2)
            reason = error.rule
            on_answer(done + len(answering))
            continue
        seen.add((case.subject, case.name))
        show = number >= stride * len(truths) and len(truths) < EXAMPLES
        last = case.truth.shape[1] - 1
        shown = sorted({0, (last + 1) // 2, last})
        for name, answer_to in answering.items():
            answer = answer_to(case)
            rows[name].append(
                Row(case.subject, case.name, protocol.score(case, answer), case.groups)
            )
            if show:
                answers[name].append(np.clip(answer[:, shown], 0, 1))
            done += 1
            on_answer(done)
        if show:
            truths.append(np.clip(case.truth[:, shown], 0, 1))
        targets += case.truth.shape[0] * case.truth.shape[1]
    if not targets:
        raise DataError(
            files[0].parent if files else "data",
            f"No file can be used ({reason}).",
            "See the warnings above.",
        )
    return Evaluation(rows, targets, truths, answers)


def kept_answer(contender: Contender, case: Case, folder: Path) -> NDArray[np.float32]:
    """A method's answer ``(frames, targets, height, width)``, in float16 precision.

    It is read from the folder if an intact file for this identity and case is there. Otherwise
    the method is run, and its answer is kept there.
    """
    digest = hashlib.sha256(contender.identity.encode())
    for part in (case.images, case.positions, case.targets, np.array(case.spacing)):
        digest.update(str(part.shape).encode() + np.ascontiguousarray(part).tobytes())
    path = folder / contender.name / f"{case.name}-{digest.hexdigest()[:16]}.npz"
    missing_or_damaged = OSError, BadZipFile, zlib.error, KeyError, ValueError, EOFError
    # Opened here: numpy leaves a file that is no archive open.
    with suppress(*missing_or_damaged), path.open("rb") as file, np.load(file) as store:
        return np.asarray(store["answer"]).astype(np.float32)
    answer = contender.answer(case).astype(np.float16)
    check_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as target:
        np.savez_compressed(target, answer=answer)
    return answer.astype(np.float32)
