"""Pictures and tables of the documentation: drawn by a command, light, and with their licence."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from doc_pages import DOCS, ROOT
from PIL import Image

from calid.report.figures import LIGHT

RESULTS = runpy.run_path(str(ROOT / "benchmarks" / "write_results.py"))
ACDC = re.compile(r"\bacdc(_cine)?/(train|val|test)\b")
FIGURES = re.compile(r"^\| [^|`]+ \|.*\d\.\d", re.M)


def shown() -> list[Path]:
    return sorted(p for s in ("*.png", "*.jpg", "*.jpeg", "*.gif") for p in DOCS.rglob(s))


@pytest.mark.nightly
def test_every_picture_is_drawn(tmp_path):
    script = runpy.run_path(str(ROOT / "benchmarks" / "write_pictures.py"))
    script["draw"](tmp_path, view=60.0, samples=2)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert all(10_000 < path.stat().st_size <= LIGHT for path in tmp_path.iterdir())
    shown = set()
    for page in (DOCS / "concepts").glob("*.md"):
        shown |= set(re.findall(r"\(\.\./pictures/([\w.-]+)\)", page.read_text()))
    assert shown == drawn


def test_every_committed_picture_is_light():
    assert len(shown()) > 10
    heavy = {p.name: p.stat().st_size for p in shown() if p.stat().st_size > 200_000}
    assert heavy == {}
    for path in shown():
        with Image.open(path) as picture:
            assert (picture.format, picture.mode) in (("PNG", "L"), ("PNG", "P")), path


def test_what_is_made_of_acdc_carries_its_licence():
    pages = [ROOT / "README.md", ROOT / "src/calid/weights/MODEL_CARD.md"]
    pages += DOCS.rglob("*.md")
    made = [p for p in pages if ACDC.search(p.read_text()) and FIGURES.search(p.read_text())]
    assert len(made) > 4
    assert [p.name for p in made if RESULTS["NOTICE"] not in p.read_text()] == []
    # Rows, summaries and pictures have theirs in the table of their folder.
    folders = {p.parent for p in (DOCS / "results").glob("*acdc*/*")}
    assert len(folders) > 3
    assert folders <= {p.parent for p in made}
    notices = (ROOT / "LICENSE-DATA").read_text()
    assert all(f"docs/results/{p.parent.name}/" in notices for p in made if p.name == "table.md")


def test_the_notice_follows_the_line_that_names_the_data(tmp_path):
    table = tmp_path / "table.md"
    table.write_text("hidden-slices on acdc/val\n\n| method |\n|---|\n| a |\n")
    RESULTS["mark"](table)
    first, _, notice, _, *rest = table.read_text().splitlines()
    assert first == "hidden-slices on acdc/val"
    assert re.search(r"ACDC.*Bernard.*CC BY-NC-SA 4\.0", notice)
    assert rest == ["| method |", "|---|", "| a |"]


@pytest.mark.parametrize("place", ["docs/results/README.md", "README.md", "LICENSE-DATA"])
def test_the_licence_of_the_data_is_named(place):
    text = (ROOT / place).read_text()
    assert re.search(r"ACDC[^|]*CC BY-NC-SA 4\.0", text, re.S)
