"""Notebooks run from the first cell to the last, without a kernel."""

from __future__ import annotations

import json

import matplotlib
import pytest
from doc_pages import DOCS, ROOT, run_python

NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))


@pytest.mark.nightly
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_run_in_order(path, tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "code":
            run_python("".join(cell["source"]), names, f"{path.name}, cell {number}")
    matplotlib.pyplot.close("all")
    assert (tmp_path / "dense.nii.gz").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_kept(path):
    # They would be old pictures of other weights, and megabytes of them.
    cells = json.loads(path.read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells), path.relative_to(ROOT)
