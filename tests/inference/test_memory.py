from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_model import reconstructed, tiny_model

from calid.errors import ResourceError, UsageError
from calid.inference.memory import (
    AT_ONCE,
    Demand,
    Parts,
    available_memory,
    fit_memory,
)

CPU = torch.device("cpu")
DEMAND = Demand(arrays=1e8, pixels=50_000, frames=1, targets=6)


def test_more_of_anything_never_takes_less(small_stack):
    demands = [
        Demand.of(small_stack, factor, samples, uncertainty)
        for factor, samples, uncertainty in ((2, 0, False), (5, 0, False), (5, 4, False),
                                             (5, 4, True))
    ]  # fmt: skip
    totals = [d.total(AT_ONCE) for d in demands]
    assert totals == sorted(totals)
    assert len(set(totals)) == 4
    assert [DEMAND.networks(n) for n in (1, 2, 4, 8)] == sorted(
        DEMAND.networks(n) for n in (1, 2, 4, 8)
    )


def test_short_memory_means_fewer_at_once_and_then_a_refusal_with_the_figure():
    assert fit_memory(DEMAND, DEMAND.total(AT_ONCE) / 1e9, CPU) == AT_ONCE
    assert fit_memory(DEMAND, DEMAND.total(2) / 1e9, CPU) == 2
    least = DEMAND.total(1) / 1e9
    with pytest.raises(ResourceError, match=rf"about {least:.2g} GB.*allowed.*`factor`") as caught:
        fit_memory(DEMAND, 0.99 * least, CPU)
    assert caught.value.exit_code == 10


def test_without_a_limit_what_is_available_counts(monkeypatch):
    have = available_memory()
    assert have is None or have > 1e8
    monkeypatch.setattr("calid.inference.memory.available_memory", lambda: 1e8)
    with pytest.raises(ResourceError, match=r"0\.1 GB are available"):
        fit_memory(DEMAND, None, CPU)
    monkeypatch.setattr("calid.inference.memory.available_memory", lambda: None)
    assert fit_memory(DEMAND, None, CPU) == AT_ONCE


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_positive_number(limit):
    with pytest.raises(UsageError, match="`max_memory`"):
        fit_memory(DEMAND, limit, CPU)


class Scarce:
    """Runs out of memory above a number of slices."""

    def __init__(self, most: int, error: Exception) -> None:
        self.most, self.error, self.seen = most, error, []

    def __call__(self, some: slice) -> torch.Tensor:
        count = some.stop - some.start
        self.seen.append(count)
        if count > self.most:
            raise self.error
        return torch.arange(some.start, some.stop)


def in_parts(run: Scarce, count: int, size: int) -> list[torch.Tensor]:
    found = []
    for part in Parts(count, size):
        with part as some:
            found.append(run(some))
    return found


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_parts_are_halved_until_they_fit(error):
    run = Scarce(2, error)
    torch.testing.assert_close(torch.cat(in_parts(run, 7, 7)), torch.arange(7))
    assert run.seen == [7, 4, 2, 2, 2, 1]


def test_a_part_that_cannot_be_smaller_is_a_typed_error():
    with pytest.raises(ResourceError, match="Memory ran out"):
        in_parts(Scarce(0, MemoryError()), 5, 4)


def test_other_errors_are_not_taken_for_missing_memory():
    run = Scarce(0, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        in_parts(run, 4, 4)
    assert run.seen == [4]


def test_a_reconstruction_beyond_its_limit_is_refused_before_any_work(small_stack):
    model, seen = tiny_model(), list[int]()
    with pytest.raises(ResourceError):
        reconstructed(model, small_stack, factor=2, max_memory=0.1, on_frame=seen.append)
    assert not seen


MEASURE = """
import json, sys
import numpy as np, torch
torch.set_num_threads(1)
from calid.evaluation.cost import peak_memory
from calid.geometry.affine import from_spacing
from calid.inference.memory import Demand
from calid.inference.model import load_model
from calid.inference.options import Generation
from calid.inference.reconstruct import reconstruct
from calid.stack import SliceStack
data = np.random.default_rng(0).integers(0, 999, (1, 2, 192, 192)).astype(np.int16)
stack = SliceStack(data, from_spacing((1.5, 1.5, 10.0)), np.arange(2) * 10.0, 8.0, np.zeros(1))
model = load_model(device="cpu", precision="float32")
reconstruct(stack, Generation(factor=4, region="whole"), model=model)
demand = Demand.of(stack, 4, 0)
print(json.dumps([peak_memory() * 1e6, demand.total()]))
"""


@pytest.mark.slow
def test_the_estimate_covers_a_measured_peak_and_is_of_its_order():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE], check=True, capture_output=True, text=True
    )
    measured, estimated = json.loads(done.stdout)
    assert measured <= estimated <= 2.5 * measured


def test_a_film_takes_more_than_a_frame(small_stack):
    frame = replace(small_stack, data=small_stack.data[:1], frame_times=np.zeros(1))
    film, one = (Demand.of(s, 4, 0) for s in (small_stack, frame))
    assert film.arrays > one.arrays
    assert film.networks(1) > one.networks(1), "a target is registered in all frames at once"
