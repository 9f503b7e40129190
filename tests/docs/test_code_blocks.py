"""Every code block of README and documentation runs, in order, on a small synthetic stack."""

from __future__ import annotations

import pytest
from doc_pages import DOCS, ROOT, RUN, blocks, pages, run_page

PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in pages()
    if any(block.language in RUN for block in blocks(path.read_text()))
}
FIRST = {"README.md", "docs/get-started/index.md", "docs/how-to/own-data.md"}
"""What most readers copy from; the recipes of the other pages run at night."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in FIRST else pytest.mark.nightly)
        for name in PAGES
    ],
)
def test_blocks_run(name, reader):
    run_page(PAGES[name], reader)


def test_pages_with_code_are_found():
    assert set(PAGES) >= FIRST


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_block_says_what_it_is(path):
    text = path.read_text()
    kinds = {block.language for block in blocks(text)}
    assert kinds <= {*RUN, "console", "text", "bibtex", "json", "yaml", ""}
    # README's demonstration is written without a language by benchmarks/write_results.py.
    assert "" not in kinds or not path.is_relative_to(DOCS) or "results" in path.parts


def test_a_failing_block_fails(reader):
    page = reader / "page.md"
    page.write_text("```python\nassert 1 == 2\n```\n")
    with pytest.raises(AssertionError):
        run_page(page, reader)
    page.write_text("```bash\ncalid reconstruct missing.nii.gz dense.nii.gz\n```\n")
    with pytest.raises(SystemExit):
        run_page(page, reader)
    page.write_text("```bash\nfalse\ntrue\n```\n")
    with pytest.raises(AssertionError):
        run_page(page, reader)
