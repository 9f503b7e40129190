"""What `--help` prints can be read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from command_line import run

import calid
from calid.cli import main
from calid.inference import options

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


def test_help_begins_with_what_to_do_first(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert shown.index("calid reconstruct stack.nii.gz") < shown.index("subcommands")


def test_the_version_is_one_line(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"calid {calid.__version__}\n"
