"""Running a protocol: every case, every method, every figure."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calid.errors import CalidError, CalidWarning, DataError
from calid.evaluation.case import Case
from calid.evaluation.contender import Contender
from calid.evaluation.predictions import Predictions

__all__ = ["Evaluation", "Figures", "Protocol", "Row", "evaluate"]

EXAMPLES = 2

Figures = Mapping[str, NDArray[np.float64]]
"""Metric to figures: one a target, or one for the whole case. Means leave out NaN and infinity."""


@dataclass(frozen=True)
class Protocol:
    """How cases are made and answers are judged.

    Parameters
    ----------
    name
        As on the command line.
    load
        A case of a file. `CalidError` leaves the file out, with a warning.
    score
        Figures of an answer ``(frames, targets, height, width)``.
    columns
        Metrics of the table, in order; all others stand in the CSV alone.
    headline
        Metrics whose paired differences over linear are shown.
    lower_is_better
        Metrics of which that is so.
    ceilings
        Rows that see the truth and compete with no one: name to an answer from the case.
    goal
        The ceiling of which the tables say how much of the way from linear is covered.
    combine
        Further figures of a subject from those of its cases, by case name.
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
        Middle targets of a few cases, and what every method made of them.
    """

    rows: Mapping[str, Sequence[Row]]
    targets: int
    truths: list[NDArray[np.float32]]
    answers: dict[str, list[NDArray[np.float32]]]


def evaluate(
    protocol: Protocol,
    files: Sequence[Path],
    contenders: Sequence[Contender],
    predictions: Predictions,
    on_answer: Callable[[int], None],
) -> Evaluation:
    """Run a protocol.

    Parameters
    ----------
    files
        One case each.
    contenders
        In the order of the table.
    predictions
        Where answers are kept.
    on_answer
        Called with the number of pairs of file and method that are done or left out.

    Raises
    ------
    DataError
        If no file makes a case. Those that do not are left out with a warning.
    """
    names = [c.name for c in contenders] + list(protocol.ceilings)
    rows: dict[str, list[Row]] = {n: [] for n in names}
    truths: list[NDArray[np.float32]] = []
    answers: dict[str, list[NDArray[np.float32]]] = {n: [] for n in names}
    targets, stride = 0, max(1, len(files) // EXAMPLES)
    seen: set[tuple[str, str]] = set()
    reason: CalidError | None = None
    for number, path in enumerate(files):
        done = number * len(names)
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
            reason = error
            on_answer(done + len(names))
            continue
        seen.add((case.subject, case.name))
        show = number >= stride * len(truths) and len(truths) < EXAMPLES
        middle = case.truth.shape[1] // 2
        for name, answer in _answers(protocol, case, contenders, predictions):
            figures = protocol.score(case, answer)
            rows[name].append(Row(case.subject, case.name, figures, case.groups))
            if show:
                answers[name].append(np.clip(answer[0, middle], 0, 1))
            done += 1
            on_answer(done)
        if show:
            truths.append(np.clip(case.truth[0, middle], 0, 1))
        targets += case.truth.shape[0] * case.truth.shape[1]
    if not targets:
        raise DataError(
            files[0].parent if files else "data",
            f"No file can be used ({reason.rule if reason else 'there is none'}).",
            "See the warnings above.",
        )
    return Evaluation(rows, targets, truths, answers)


def _answers(
    protocol: Protocol, case: Case, contenders: Sequence[Contender], predictions: Predictions
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Name and answer of every row, one after the other."""
    for contender in contenders:
        yield contender.name, predictions.of(contender, case)
    for name, answer in protocol.ceilings.items():
        yield name, answer(case)
