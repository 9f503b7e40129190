"""What commands import: a start is short, and needs no folder to write to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from calid.data.phantom import HeartPhantom
from calid.inference.densify import densify
from calid.io import write_volume

RUN = """
import json, sys
from calid.cli.main import main

found = {}
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as stop:
        assert not stop.code, arguments
    found[arguments[0]] = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
sys.stderr.write(json.dumps(found))
"""


def imported(commands: list[list[str]], *modules: str) -> dict[str, list[str]]:
    """Which of the modules are there after each command, all in one new process."""
    given = ["-c", RUN, json.dumps(commands), json.dumps(modules)]
    done = subprocess.run([sys.executable, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stderr.splitlines()[-1]))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("heart") / "stack.nii.gz"
    heart = HeartPhantom(1).acquire(slices=3, start=20.0, field_of_view=120.0)
    write_volume(densify(heart, lambda *given: given[0], 1), path)
    return str(path)


@pytest.mark.slow
def test_no_ordinary_command_imports_a_compiler(stack: str, tmp_path: Path) -> None:
    dense, labels = (str(tmp_path / name) for name in ("dense.nii.gz", "labels.nii.gz"))
    commands = [
        ["--help"],
        ["info"],
        ["inspect", stack],
        ["reconstruct", stack, dense, "--factor", "2", "--figure", str(tmp_path / "dense.png")],
        ["segment", stack, labels],
        ["measure", stack, "--no-dense"],
    ]
    found = imported(commands, "torch._dynamo")
    assert found == {arguments[0]: [] for arguments in commands}


def test_help_does_without_the_large_libraries() -> None:
    libraries = ("torch", "numpy", "scipy", "nibabel", "pydicom", "matplotlib")
    assert imported([["--help"], ["--version"]], *libraries) == {"--help": [], "--version": []}


@pytest.mark.slow
def test_inspecting_a_stack_does_without_what_draws_and_learns(stack: str) -> None:
    libraries = ("scipy.ndimage", "scipy.spatial", "matplotlib", "torch")
    assert imported([["inspect", stack]], *libraries) == {"inspect": []}
