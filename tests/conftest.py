from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from calid.geometry.affine import from_spacing
from calid.runtime import VARIABLE, computing
from calid.stack import Intensity, SliceStack

# Workers share the machine's cores; so do the processes that tests start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# The same examples everywhere, on busy machines too.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Nightly tests are slow, so that ``-m "not slow"`` leaves them out too."""
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real stacks; tests that need it are skipped without."""
    if "CALID_DATA" not in os.environ:
        pytest.skip("CALID_DATA is not set")
    return Path(os.environ["CALID_DATA"])


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """What networks compute in unless they are told, whatever the hardware: each in turn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "yes" if request.param == "bfloat16" else "no")
        yield getattr(torch, request.param)


@pytest.fixture
def inside(precision: torch.dtype) -> Iterator[torch.dtype]:
    """The same, for tests that call a network themselves: all of the test is within `computing`."""
    with computing(torch.device("cpu"), precision):
        yield precision


@pytest.fixture
def small_stack() -> SliceStack:
    """Five blurred random slices, 10 mm apart, two frames, int16 with slope and intercept."""
    generator = np.random.default_rng(0)
    coarse = generator.uniform(0, 300, (2, 5, 6, 7))
    data = np.kron(coarse, np.ones((1, 1, 6, 6)))[..., :34, :41].astype(np.int16)
    return SliceStack(
        data=data,
        affine=from_spacing((1.4, 1.6, 10.0)),
        positions=np.arange(5) * 10.0,
        thickness=8.0,
        frame_times=np.array([0.0, 0.04]),
        intensity=Intensity(2.0, -3.0),
        rank=4,
    )
