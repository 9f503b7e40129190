"""What commands say of themselves (help, version, completion, info), and what they import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from command_line import run

import calid
from calid import runtime
from calid.cli import info, main
from calid.data.phantom import HeartPhantom
from calid.inference import options
from calid.inference.densify import densify
from calid.io import write_volume
from calid.weights import FOLDER

COLUMN = 57
"""Characters of an option's text in a line of 80; the lines of longer texts stay lines there."""


def option_texts(source: str) -> Iterator[tuple[str, str]]:
    """Options of the classes in a module, and the strings below them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for field, text in pairwise(node.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    yield ast.unparse(field.target), ast.literal_eval(text.value)


def test_lines_of_an_option_fill_its_column():
    folder = Path(main.__file__).parent
    texts = [
        (name, text)
        for path in [*folder.glob("*.py"), Path(options.__file__)]
        for name, text in option_texts(path.read_text())
    ]
    assert len(texts) > 60
    lines = {name: [line.strip() for line in text.splitlines()] for name, text in texts}
    long = {name: text for name, text in lines.items() if len(text) > 1}
    assert long
    assert [name for name, text in long.items() if max(map(len, text)) > COLUMN] == []


@pytest.mark.parametrize("verb", ["reconstruct", "evaluate", "inspect", "cohort"])
def test_help_says_what_a_verb_does_and_how_it_reads(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(verb, "--help") == 0
    shown = capsys.readouterr().out
    assert "--odd-slices {refuse,leave-out}" in shown
    assert "itself: auto takes pixdim and says so." in shown


def test_help_begins_with_what_to_do_first_and_the_version_is_one_line(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert shown.index("calid reconstruct stack.nii.gz") < shown.index("subcommands")
    assert run("--version") == 0
    assert capsys.readouterr().out == f"calid {calid.__version__}\n"


@pytest.mark.slow
def test_bash_completes_verbs_and_options(tmp_path, capsys):
    for shell in ("zsh", "fish", "bash"):
        assert run("--tyro-print-completion", shell) == 0
        script = capsys.readouterr().out
        assert "reconstruct" in script
        assert "uncertainty" in script
    (tmp_path / "calid").write_text(script)
    ask = """
    source "$1"; shift
    COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
    eval "$(complete -p calid | sed -E 's/.*-F ([^ ]+) .*/\\1/')"
    printf '%s\\n' "${COMPREPLY[@]}"
    """

    def completed(*words: str) -> list[str]:
        command = ["bash", "-c", ask, "bash", str(tmp_path / "calid"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert "reconstruct" in completed("calid", "rec")
    assert "--uncertainty" in completed("calid", "reconstruct", "--unc")
    assert completed("calid", "nothing-like-it") == []


def test_info_tells_what_runs_where_and_what_the_weights_are(capsys, monkeypatch):
    monkeypatch.setattr(runtime.torch.cuda, "is_available", lambda: False)
    assert run("info", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    machine = content["runs_on"]
    assert (machine["device"], machine["gpu"]) == ("cpu", None)
    assert machine["precision"] in ("float32", "bfloat16")
    assert machine["cores"] >= 1
    assert machine["processor"]
    assert content["libraries"]["torch"]
    assert content["licence"]["weights"] == "CC BY-NC-SA 4.0"
    assert set(content["weights"]) >= {"autoencoder", "default", "paper"}
    for name, facts in content["weights"].items():
        path = FOLDER / f"{name}.safetensors"
        assert facts["bytes"] == path.stat().st_size
        assert facts["parameters"] * 2 < facts["bytes"] < facts["parameters"] * 2 + 100_000
        assert facts["figures"]
    assert sum(facts["bytes"] for facts in content["weights"].values()) <= 60e6
    monkeypatch.setattr(info, "LIBRARIES", ("torch", "no-such-library"))
    assert run("info") == 0
    text = capsys.readouterr().out
    assert "networks run on cpu in" in text
    assert "no-such-library not installed" in text


def test_the_public_names_are_all_there():
    for name in calid.__all__:
        assert getattr(calid, name) is not None
    with pytest.raises(AttributeError):
        calid.nonsense  # noqa: B018


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
    libraries = ("torch", "numpy", "scipy", "nibabel", "pydicom", "matplotlib", "ray")
    assert imported([["--help"], ["--version"]], *libraries) == {"--help": [], "--version": []}


@pytest.mark.slow
def test_what_looks_only_does_without_what_draws_and_learns(stack: str) -> None:
    libraries = ("scipy.ndimage", "scipy.spatial", "matplotlib", "torch")
    assert imported([["inspect", stack]], *libraries) == {"inspect": []}
    assert imported([["info", "--json"]], "matplotlib", "ray") == {"info": []}
