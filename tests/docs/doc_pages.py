"""What the tests of the documentation share: its pages, their code blocks, and how to run them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calid.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S
)

RUN = ("bash", "python")
"""Languages that are run. Others are shown only: console for what needs a network, a cluster or
minutes, text for output."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, and first line in the page."""

    language: str
    text: str
    line: int


def pages() -> list[Path]:
    """Every page that a person wrote, README first."""
    found = sorted(p for p in DOCS.rglob("*.md") if p.name != "table.md")
    return [ROOT / "README.md", *found]


def blocks(text: str) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    for match in FENCE.finditer(text):
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.M)
        yield Block(match["language"], body, text[: match.start()].count("\n") + 2)


def run_page(page: Path, folder: Path) -> None:
    """Run a page's blocks in order; Python blocks share their names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page.read_text()):
        where = f"{page.name}:{block.line}"
        if block.language == "python":
            run_python(block.text, names, where)
        elif block.language == "bash":
            run_shell(block.text, folder, where)


def run_python(text: str, names: dict[str, Any], where: str) -> None:
    """Run as a script would: unclosed files of a short example are no failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        exec(compile(text, where, "exec"), names)


def run_shell(text: str, folder: Path, where: str) -> None:
    """Run commands; those of `calid` alone in this process, which spares loading torch again."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line]
    commands = [command for command in commands if command]
    plain = all(c[0] == "calid" and not {"|", ">", "--help"} & set(c) for c in commands)
    if plain and not any("--tyro" in word for c in commands for word in c):
        for command in commands:
            main(command[1:])
        return
    shim = folder / "bin" / "calid"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m calid "$@"\n')
    shim.chmod(0o755)
    path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{where}: {done.stderr}"
