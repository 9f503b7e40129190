from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from calid.data.sparsify import GAPS, SparseTuple, allowed_strides, draw_tuple, hide_alternate


def tuples(positions: np.ndarray, count: int = 300, midway: bool = False) -> list[SparseTuple]:
    generator = Generator().manual_seed(0)
    return [draw_tuple(positions, generator, midway) for _ in range(count)]


def neighbours(choice: SparseTuple) -> tuple[int, int]:
    """How many slices the target is away from the kept ones below and above."""
    upper = int(np.searchsorted(choice.kept, choice.target))
    return choice.target - int(choice.kept[upper - 1]), int(choice.kept[upper]) - choice.target


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    slices=st.integers(3, 40),
    gap=st.floats(1, 25),
    midway=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_target_is_hidden_between_two_kept_slices(
    slices: int, gap: float, midway: bool, seed: int
) -> None:
    choice = draw_tuple(gap * np.arange(slices), Generator().manual_seed(seed), midway)
    kept = choice.kept
    assert choice.target not in kept
    assert kept[0] < choice.target < kept[-1]
    assert kept[0] >= 0
    assert kept[-1] < slices
    assert len(set(np.diff(kept))) == 1
    below, above = neighbours(choice)
    assert min(below, above) >= 1
    assert below + above == np.diff(kept)[0]
    if midway:
        assert below == above


def test_gaps_of_a_clinical_stack_have_a_useful_width() -> None:
    positions = 10.0 * np.arange(11)
    widths = {float(np.diff(positions[c.kept])[0]) for c in tuples(positions)}
    assert widths == {20.0, 30.0, 40.0}
    assert min(widths) >= GAPS[0]
    assert max(widths) <= GAPS[1]


def test_all_distances_to_the_neighbours_up_to_three_slices_occur() -> None:
    pairs = {neighbours(c) for c in tuples(10.0 * np.arange(11))}
    assert {(1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (3, 1)} == pairs


def test_every_slice_but_the_ends_becomes_a_target_and_every_slice_a_context() -> None:
    drawn = tuples(10.0 * np.arange(9), 500)
    assert {c.target for c in drawn} == set(range(1, 8))
    assert {int(i) for c in drawn for i in c.kept} == set(range(9))


def test_gaps_near_the_typical_width_are_drawn_most_often() -> None:
    positions = 2.5 * np.arange(40)
    widths = [float(np.diff(positions[c.kept])[0]) for c in tuples(positions, 600)]
    counts = {w: widths.count(w) for w in set(widths)}
    assert min(counts) >= GAPS[0]
    assert max(counts, key=lambda w: counts[w]) == 15.0
    assert counts[15.0] > 2 * counts[7.5]


def test_midway_targets_are_in_the_middle_of_their_gap() -> None:
    pairs = {neighbours(c) for c in tuples(10.0 * np.arange(11), midway=True)}
    assert pairs == {(1, 1), (2, 2)}


def test_draws_depend_on_the_generator_alone() -> None:
    positions = 8.0 * np.arange(12)
    first, again = tuples(positions, 20), tuples(positions, 20)
    for a, b in zip(first, again, strict=True):
        assert a.target == b.target
        np.testing.assert_array_equal(a.kept, b.kept)
    assert len({(c.target, *c.kept) for c in first}) > 5


@pytest.mark.parametrize(
    ("slices", "gap", "strides"),
    [(11, 10.0, [2, 3, 4]), (11, 8.0, [2, 3, 4, 5]), (4, 10.0, [2, 3]), (3, 10.0, [2]),
     (20, 2.5, [3, 4, 5, 6, 7, 8]), (9, 25.0, [2]), (50, 0.5, [2])],
)  # fmt: skip
def test_strides_open_gaps_of_6_to_42_mm_or_else_the_smallest(
    slices: int, gap: float, strides: list[int]
) -> None:
    assert allowed_strides(gap * np.arange(slices)).tolist() == strides


@pytest.mark.parametrize("slices", range(1, 14))
def test_the_benchmark_never_hides_an_end_slice(slices: int) -> None:
    kept, hidden = hide_alternate(slices)
    assert kept.tolist() == list(range(0, slices, 2))
    assert 0 not in hidden
    assert slices - 1 not in hidden
    assert all(h - 1 in kept and h + 1 in kept for h in hidden)
    assert len(hidden) == max(0, (slices - 1) // 2)
