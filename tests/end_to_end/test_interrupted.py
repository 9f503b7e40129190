"""What is left when a run is killed, the disk is full or the folder read-only."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import random_nifti, run

from calid.io.sidecar import sha256
from calid.training import recipes
from calid.weights import weights_path

HARNESS = Path(__file__).parents[2] / "benchmarks" / "kill.py"
NOWHERE = Path("/proc/calid")  # refuses even root

resource = pytest.importorskip("resource", reason="limits the size of files")


@pytest.mark.nightly
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(not HARNESS.exists(), reason="comes with the repository only")
def test_killed_runs_leave_whole_files_and_end_as_if_nothing_had_happened():
    command = [sys.executable, str(HARNESS), "--times", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["6 of 6"], done.stdout + done.stderr


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    return random_nifti(tmp_path / "data" / "p1_ED.nii.gz", 40, 36, 3)


@contextmanager
def disk_for(size: int) -> Iterator[None]:
    """Files may not become larger than ``size`` bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def reconstruct(source: Path, out: Path, *more: object) -> int:
    files = ("--uncertainty", out / "std.nii.gz", "--figure", out / "cut.png")
    command = ("reconstruct", source, out / "dense.nii.gz", *files, "--factor", 2, "--samples", 2)
    return run(*command, "--steps", 1, "--device", "cpu", *more)


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_or_what_was_there(stack_file, tmp_path, capsys):
    out, free = tmp_path / "out", tmp_path / "free"
    out.mkdir()
    free.mkdir()
    assert reconstruct(stack_file, free) == 0
    files = json.loads((free / "dense.json").read_text())["files_sha256"]
    named = {"output": "dense.nii.gz", "uncertainty": "std.nii.gz", "figure": "cut.png"}
    assert files == {role: sha256(free / name) for role, name in named.items()}
    largest = max(len(data) for data in content(free).values())
    # The disk is full within the volume, and within the largest file, when others stand already.
    for size in (1000, largest - 1):
        with disk_for(size):
            assert reconstruct(stack_file, out) == 6
        assert content(out) == {}
        assert "could not be written: File too large" in capsys.readouterr().err
    assert reconstruct(stack_file, out) == 0
    before = content(out)
    with disk_for(1000):
        assert reconstruct(stack_file, out, "--seed", 1) == 6
    assert content(out) == before
    assert ".calid-" not in capsys.readouterr().err


def verbs(data: Path, out: Path) -> dict[str, tuple[object, ...]]:
    """A command for every verb that writes, with all of its files in ``out``."""
    stack = data / "p1_ED.nii.gz"
    folders = ("--data", data, "--validation", data, "--out", out)
    stage_1 = ("--autoencoder", weights_path("autoencoder"))
    return {
        "reconstruct": ("reconstruct", stack, out / "dense.nii.gz"),
        "segment": ("segment", stack, out / "labels.nii.gz"),
        "measure": ("measure", stack, "--out", out),
        "evaluate": ("evaluate", data, "--methods", "linear", "--out", out),
        "cost": ("evaluate", "phantoms", "--protocol", "cost", "--out", out),
        "demo": ("demo", "--out", out),
        "autoencoder": ("train", "autoencoder", *folders),
        "default": ("train", "default", *folders, *stage_1),
        "regression": ("train", "regression", *folders, *stage_1),
        "segmentation": ("train", "segmentation", *folders),
    }


VERBS = tuple(verbs(Path(), Path()))


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_is_a_file_or_read_only_is_an_output_error(
    verb, stack_file, tmp_path, capsys
):
    out = tmp_path / "out"
    out.write_text("a file")
    assert run(*verbs(stack_file.parent, out)[verb]) == 6
    assert out.read_text() == "a file"
    if NOWHERE.parent.exists():
        assert run(*verbs(stack_file.parent, NOWHERE)[verb]) == 6
    message = capsys.readouterr().err
    assert str(NOWHERE) in message or not NOWHERE.parent.exists()
    assert "Traceback" not in message


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["evaluate", "autoencoder"])
def test_a_disk_that_fills_up_on_the_way_is_an_output_error(
    verb, stack_file, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    short = ("--steps", 1) if verb == "autoencoder" else ()
    small = dataclasses.replace(recipes.AUTOENCODER, batch=2, size=32, phantoms=0)
    monkeypatch.setattr(recipes, "AUTOENCODER", small)
    validation = tmp_path / "held" / "p2_ED.nii.gz"
    validation.parent.mkdir()
    validation.write_bytes(stack_file.read_bytes())
    command = [*verbs(stack_file.parent, out)[verb], *short]
    if verb == "autoencoder":
        command[command.index("--validation") + 1] = validation.parent
    # Not every file fits: of an evaluation the larger ones, of a training its checkpoint.
    with disk_for(1_000 if verb == "evaluate" else 20_000):
        assert run(*command) == 6
    left = {p.name for p in out.rglob("*") if p.is_file()}
    assert not left & {"summary.json", "table.md", "checkpoint.safetensors"}
    assert not [name for name in left if name.startswith(".calid-")]
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "folder"),
    [("autoencoder", ""), ("default", "posterior"), ("regression", "regression")],
)
def test_training_does_not_walk_over_an_earlier_one(verb, folder, stack_file, tmp_path, capsys):
    old = tmp_path / folder / "checkpoint.safetensors"
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"hours of work")
    assert run(*verbs(stack_file.parent, tmp_path)[verb]) == 2
    assert "--resume" in capsys.readouterr().err
    assert old.read_bytes() == b"hours of work"
