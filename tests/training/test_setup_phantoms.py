"""Synthetic hearts for trainings."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calid.data.bank import LabelledStack
from calid.data.phantom import HeartPhantom
from calid.errors import UsageError
from calid.io.labels import LV, MYOCARDIUM, RV
from calid.training.setup import labelled_phantoms, phantom_films

pytestmark = pytest.mark.slow

ML = 1.5 * 1.5 * 10 / 1000


def contrast(images: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """How much brighter the cavity is than its wall."""
    return float(images[labels == LV].mean() - images[labels == MYOCARDIUM].mean())


@pytest.fixture(scope="module")
def stacks() -> list[LabelledStack]:
    return labelled_phantoms(3)


def test_labels_hold_the_exact_volumes(stacks: list[LabelledStack]) -> None:
    for seed, stack in enumerate(stacks):
        exact = HeartPhantom(seed).volumes((0.37 * seed % 1.0,))
        assert (stack.labels == LV).sum() * ML == pytest.approx(float(exact.lv[0]), rel=0.06)
        assert (stack.labels == RV).sum() * ML == pytest.approx(float(exact.rv[0]), rel=0.06)


def test_labels_lie_on_their_tissue(stacks: list[LabelledStack]) -> None:
    for stack in stacks:
        assert stack.images.shape == stack.labels.shape
        assert stack.images.dtype == np.float32
        assert stack.labels.dtype == np.uint8
        here = contrast(stack.images, stack.labels)
        assert here > 0.3
        for flip in (1, 2):
            assert contrast(stack.images, np.flip(stack.labels, flip)) < 0.9 * here


def test_stacks_reach_beyond_the_ventricle(stacks: list[LabelledStack]) -> None:
    for stack in stacks:
        assert not stack.labels[0].any()
        assert not stack.labels[-1].any()


def test_other_hearts_have_other_names_and_none_are_made_unasked(
    stacks: list[LabelledStack],
) -> None:
    assert len({stack.subject for stack in stacks}) == 3
    assert labelled_phantoms(0) == []


def test_hearts_that_are_kept_for_evaluation_are_not_trained_on() -> None:
    with pytest.raises(UsageError, match="at most 1000"):
        labelled_phantoms(1001)
    with pytest.raises(UsageError, match="at most 1000"):
        next(phantom_films(1001))


def test_several_processes_make_the_same_hearts_in_their_order() -> None:
    alone, together = (list(phantom_films(2, workers)) for workers in (1, 2))
    assert [film.subject for film in together] == ["phantom0", "phantom1"]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.positions, other.positions)
