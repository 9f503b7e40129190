"""The page on files names every field of the records that commands leave."""

from __future__ import annotations

import json
import re

import pytest
from doc_pages import DOCS

from calid.cli.main import main


def fields(record, before=""):
    """Dotted names of all leaves."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from fields(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def named(field, page):
    """Whether the page has the field, or a group that stands for all of its fields."""
    parts = field.split(".")
    return any(f"`{'.'.join(parts[:n])}`" in page for n in range(1, len(parts) + 1))


def in_tables(text):
    """What the first cells of all rows name."""
    cells = re.findall(r"^\| (`[^|]*`) \|", text, flags=re.M)
    return {name for cell in cells for name in re.findall(r"`([a-z_][\w.]*)`", cell)}


@pytest.fixture
def page():
    return (DOCS / "reference" / "files.md").read_text()


@pytest.mark.slow
def test_the_record_of_a_reconstruction(reader, page):
    main(["reconstruct", "stack.nii.gz", "dense.nii.gz", "--factor", "2"])
    record = json.loads((reader / "dense.json").read_text())
    found = set(fields(record))
    assert "input.sha256" in found
    assert {field for field in found if not named(field, page)} == set()
    listed = in_tables(page.split("## Other records")[0])
    assert {field for field in listed if field.split(".")[0] not in record} == set()


@pytest.mark.slow
def test_the_record_of_an_evaluation(reader, page):
    main(["evaluate", "stacks", "--out", "report", "--methods", "linear,nearest"])
    keys = json.loads((reader / "report" / "summary.json").read_text())
    assert "reading" in keys
    assert set(keys) == in_tables(page.split("## Evaluation folders")[1])


def test_the_records_of_labels_and_measures(reader, page):
    main(["segment", "stack.nii.gz", "labels.nii.gz"])
    main(["measure", "stack.nii.gz", "--out", "measures", "--no-dense"])
    for record in ("labels.json", "measures/measures.json"):
        keys = json.loads((reader / record).read_text())
        assert {key for key in keys if f"`{key}`" not in page} == set()
