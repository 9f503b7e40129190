"""Where the terminal, a pipe or the disk under it fails: one error, no traceback, whole files."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from command_line import random_nifti

from calid.errors import OutputError

CALID = (sys.executable, "-m", "calid")
posix = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_nifti(tmp_path_factory.mktemp("stack") / "a.nii", 32, 32, 3)


def run(*arguments: object, **streams: object) -> subprocess.CompletedProcess[bytes]:
    """Run in a process of its own; stderr is kept unless it is given."""
    command = [*CALID, *map(os.fsencode, map(str, arguments))]
    return subprocess.run(command, **({"stderr": subprocess.PIPE} | streams))  # type: ignore[call-overload]


FEW = {("pipe", "--help"), ("full", "info"), ("pipe", "inspect --json")}


def closed_pipe() -> int:
    """The end to write to of a pipe that nobody reads."""
    there, here = os.pipe()
    os.close(there)
    return here


@posix
@pytest.mark.parametrize(
    ("where", "what"),
    [
        # A process each: both ways to fail and most ways to print; all pairs at night.
        pytest.param(*pair, marks=pytest.mark.slow if pair in FEW else pytest.mark.nightly)
        for pair in product(("pipe", "full"), ("--help", "inspect", "info", "inspect --json"))
    ],
)
def test_output_that_cannot_be_printed_is_one_error(what, where, stack, tmp_path):
    if where == "full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    out = closed_pipe() if where == "pipe" else os.open("/dev/full", os.O_WRONLY)
    verb, *options = what.split()
    arguments = [verb, stack] if verb == "inspect" else [verb]
    arguments += [*options, tmp_path / "a.json"] if options else []
    done = run(*arguments, stdout=out)
    os.close(out)
    text = done.stderr.decode()
    assert done.returncode == OutputError.exit_code
    assert "standard output" in text
    assert "Traceback" not in text
    assert "Exception ignored" not in text
    assert len(text.strip().splitlines()) <= 4


@pytest.mark.slow
@posix
def test_warnings_and_progress_that_nobody_reads_stop_nothing(stack, tmp_path):
    out = closed_pipe()
    done = run("segment", stack, tmp_path / "labels.nii", stderr=out, stdout=subprocess.PIPE)
    os.close(out)
    assert done.returncode == 0
    assert (tmp_path / "labels.json").exists()
    assert b"labels.nii" in done.stdout


@pytest.mark.slow
@posix
def test_a_name_that_is_no_utf_8_is_printed(stack, tmp_path):
    name = tmp_path / os.fsdecode(b"M\xfcller [bold].nii")
    try:
        name.write_bytes(stack.read_bytes())
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    done = run("inspect", name, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert b"ller [bold].nii: NIfTI" in done.stdout
    assert run("inspect", f"{name}x", stdout=subprocess.PIPE).returncode == 3


@pytest.mark.parametrize("module", ["tyro", "rich.console", "calid.cli.train", "nibabel"])
def test_an_interruption_while_the_program_starts_is_quiet(module, stack):
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from calid.cli.main import main\n"
        f"main(['inspect', {str(stack)!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 130
    assert done.stderr == b""
