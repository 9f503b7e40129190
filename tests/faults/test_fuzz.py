"""Damaged files: the repeatable form of ``benchmarks/fuzz.py``, short and, at night, long."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


@pytest.mark.skipif(sys.platform != "linux", reason="caps memory by address space")
@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        pytest.param("nifti", 500, marks=pytest.mark.slow),
        pytest.param("dicom", 80, marks=pytest.mark.slow),
        pytest.param("packed", 40, marks=pytest.mark.slow),
        pytest.param("nifti", 10_000, marks=pytest.mark.nightly),
        pytest.param("dicom", 1_000, marks=pytest.mark.nightly),
        pytest.param("packed", 1_000, marks=pytest.mark.nightly),
    ],
)
def test_damaged_files_give_a_stack_or_a_typed_error(kind: str, inputs: int) -> None:
    # A process of its own: the cap on memory cannot be lifted again.
    done = subprocess.run(
        [sys.executable, SCRIPT, "--kind", kind, "--inputs", str(inputs), "--minutes", "600"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert done.returncode == 0
    assert found["inputs"] == inputs
    assert found["read"] > inputs / 20
    expected = {"InputError", "GeometryError"} | ({"IntensityError"} if kind == "nifti" else set())
    assert expected <= found["errors"].keys()
