"""A protocol over a folder: every stack, every method, and a few examples to look at."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calid.baselines.signature import Method
from calid.data.bank import PIXEL_SPACING
from calid.data.sparsify import hide_alternate
from calid.errors import CalidError, CalidWarning, DataError
from calid.evaluation.hidden_slices import (
    Outcome,
    compare,
    evaluate_case,
    load_case,
    subject_means,
)
from calid.evaluation.methods import CEILING
from calid.evaluation.tables import Results
from calid.inference.model import Model

__all__ = ["Evaluation", "evaluate_hidden_slices"]

EXAMPLES = 4


@dataclass(frozen=True)
class Evaluation:
    """What a protocol found.

    Parameters
    ----------
    results
        Method to subject to metric to figure.
    slices
        Number of hidden slices.
    truths, answers
        Middle hidden slices of a few stacks, and what every method made of them.
    """

    results: Results
    slices: int
    truths: list[NDArray[np.float32]]
    answers: dict[str, list[NDArray[np.float32]]]


def evaluate_hidden_slices(
    files: Sequence[Path],
    methods: Mapping[str, Method],
    ceiling: Model | None,
    on_file: Callable[[int], None],
) -> Evaluation:
    """Run the hidden-slices protocol on every file.

    Parameters
    ----------
    methods
        By name, in the order of the table.
    ceiling
        Model whose autoencoder gives the ceiling row; none leaves it out.
    on_file
        Called with the number of files done.

    Raises
    ------
    DataError
        If no stack has a slice to hide. Files that cannot be used are left out with a warning.
    """
    names = [*methods, *([CEILING] if ceiling else [])]
    rows: dict[str, list[tuple[str, Mapping[str, NDArray[np.float64]]]]] = {n: [] for n in names}
    truths: list[NDArray[np.float32]] = []
    answers: dict[str, list[NDArray[np.float32]]] = {n: [] for n in names}
    slices, stride = 0, max(1, len(files) // EXAMPLES)
    for number, path in enumerate(files):
        try:
            case = load_case(path)
        except CalidError as error:
            warnings.warn(f"left out: {error}", CalidWarning, stacklevel=2)
            continue
        hidden = hide_alternate(len(case.positions))[1]
        outcomes: dict[str, Outcome] = {n: evaluate_case(case, m) for n, m in methods.items()}
        truth = case.images[hidden]
        if ceiling:
            recoded = ceiling.recode(truth, (PIXEL_SPACING, PIXEL_SPACING))
            outcomes[CEILING] = compare(recoded, truth)
        show = number % stride == 0 and len(truths) < EXAMPLES
        if show:
            truths.append(np.clip(truth[len(hidden) // 2], 0, 1))
        for name, outcome in outcomes.items():
            rows[name].append((case.subject, outcome.figures))
            if show:
                answers[name].append(outcome.images[len(hidden) // 2])
        slices += len(hidden)
        on_file(number + 1)
    if not slices:
        raise DataError(
            files[0].parent,
            "No stack has a slice to hide.",
            "Give stacks of 3 slices or more.",
        )
    results = {name: subject_means(r) for name, r in rows.items()}
    return Evaluation(results, slices, truths, answers)
