from __future__ import annotations

from pathlib import Path

import pytest
from command_line import random_nifti
from command_line import run as calid
from faults.dicom_writer import image, save, short_axis

from calid.baselines.rules import linear
from calid.errors import CalidWarning
from calid.inference.densify import densify
from calid.io import read, write_volume
from calid.view.server import PageServer


@pytest.fixture
def source(tmp_path) -> Path:
    return random_nifti(tmp_path / "stack.nii.gz", 30, 28, 4)


def run(*arguments: object) -> int:
    return calid("view", *arguments)


def test_a_page_is_written_as_one_file(source, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run(source, "--html", page) == 0
    assert "Research use only" in page.read_text(encoding="utf-8")
    assert capsys.readouterr().out == f"{page}\n"


@pytest.mark.parametrize("browser", [True, False])
def test_the_page_is_served_until_it_is_interrupted(source, browser, monkeypatch, capsys):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    def interrupted(self: PageServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", interrupted)
    assert run(source, *([] if browser else ["--no-browser"])) == 0
    url = capsys.readouterr().out.splitlines()[0]
    assert url.startswith("http://127.0.0.1:")
    assert opened == ([url] if browser else [])


def test_a_stack_is_read_as_it_was_for_the_reconstruction(tmp_path, capsys):
    exam = save(
        [*short_axis(phases=1), image(40, 0, matrix=(14, 10), series=50)], tmp_path / "exam"
    )
    odd = ("--odd-slices", "leave-out")
    dense, page = tmp_path / "dense.nii.gz", tmp_path / "page.html"
    with pytest.warns(CalidWarning, match="left out"):
        stack = read(exam, odd_slices="leave-out")
    write_volume(densify(stack, linear, 2), dense)
    assert run(dense, "--sparse", exam, "--html", page) == 4
    assert "--odd-slices leave-out" in capsys.readouterr().err
    assert run(dense, "--sparse", exam, "--html", page, *odd) == 0
    assert page.exists()


BAD = {
    "missing": (["absent.nii.gz"], 3),
    "five": (["stack.nii.gz"] * 5, 2),
    "titles": (["stack.nii.gz", "--titles", "a", "b"], 2),
    "sparse": (["stack.nii.gz", "--sparse", "absent.nii.gz"], 3),
    "labels": (["stack.nii.gz", "--labels", "stack.nii.gz"], 5),
    "over the input": (["stack.nii.gz", "--html", "stack.nii.gz"], 6),
    "not a page": (["stack.nii.gz", "--html", "page.pdf"], 6),
    "no folder": (["stack.nii.gz", "--html", "absent/page.html"], 6),
    "port of a file": (["stack.nii.gz", "--html", "page.html", "--port", "80"], 2),
    "port": (["stack.nii.gz", "--port", "99999", "--no-browser"], 2),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_shown_is_one_typed_error(case, source, monkeypatch, capsys):
    monkeypatch.chdir(source.parent)
    arguments, expected = BAD[case]
    before = source.read_bytes()
    assert run(*arguments) == expected
    assert [path.name for path in source.parent.iterdir()] == ["stack.nii.gz"]
    assert source.read_bytes() == before
    assert "Traceback" not in capsys.readouterr().err
