"""The command that draws the pictures of the concept pages."""

from __future__ import annotations

import re
import runpy

import pytest
from doc_pages import DOCS, ROOT


@pytest.mark.nightly
def test_every_picture_is_drawn(tmp_path):
    script = runpy.run_path(str(ROOT / "benchmarks" / "write_pictures.py"))
    script["draw"](tmp_path, view=60.0, samples=2)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert all(path.stat().st_size > 10_000 for path in tmp_path.iterdir())
    shown = set()
    for page in (DOCS / "concepts").glob("*.md"):
        shown |= set(re.findall(r"\(\.\./pictures/([\w.-]+)\)", page.read_text()))
    assert shown == drawn
