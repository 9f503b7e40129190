"""The documentation builds strictly, says what the command line says, and needs no network."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys

import pytest
from doc_pages import ROOT

from calid.cli.main import main

pytest.importorskip("mkdocs")
pytestmark = pytest.mark.nightly

# Addresses that a page may ask the browser to load; links that a reader clicks are none.
LOADED = re.compile(r"""<(?:script|img|link|iframe)[^>]+?(?:src|href)=["']?(https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


@pytest.mark.parametrize("verb", ["reconstruct", "measure", "evaluate", "train default"])
def test_a_verb_has_a_page_with_every_option_of_its_help(site, verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    shown = text_of(site / "reference" / "cli" / f"{verb.replace(' ', '-')}.html")
    assert options
    assert {option for option in options if option not in shown} == set()


def test_every_verb_is_in_the_navigation(site, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    verbs = re.findall(r"• (\S+)", capsys.readouterr().out)
    front = (site / "reference" / "index.html").read_text()
    assert "reconstruct" in verbs
    assert [verb for verb in verbs if f"cli/{verb}.html" not in front] == []


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert [page for page in pages if LOADED.search(page.read_text())] == []


def test_equations_and_tables_and_the_notebook_arrive(site):
    method = (site / "concepts" / "how-it-works.html").read_text()
    assert 'class="arithmatex"' in method
    assert "katex.min.js" in method
    assert "<table>" in (site / "results" / "hidden-slices-acdc-val" / "table.html").read_text()
    assert "HeartPhantom" in text_of(site / "tutorials" / "first-heart.html")
    assert "load_model" in text_of(site / "reference" / "python" / "model.html")
