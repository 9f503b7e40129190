"""`calid reconstruct --report`."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from html import unescape
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from calid.cli import main as program
from calid.cli.report import again, warnings_noted, without_paths
from calid.errors import CalidWarning
from calid.inference.options import Generation, Reading
from calid.io.sidecar import sha256


@pytest.fixture
def stack_file(tmp_path):
    """Slices in a file that says little of its geometry, which is worth a warning."""
    data = np.random.default_rng(0).integers(0, 400, (40, 36, 4)).astype(np.int16)
    image = nib.Nifti1Image(data, None)
    image.header.set_zooms((1.5, 1.5, 10.0))
    image.header.set_xyzt_units("mm", "sec")
    folder = tmp_path / "Mustermann"
    folder.mkdir()
    nib.save(image, folder / "Doe^Jane.nii.gz")
    return folder / "Doe^Jane.nii.gz"


@pytest.mark.slow
def test_the_page_is_complete_and_names_nothing(stack_file, tmp_path, capsys):
    out, spread, html = (tmp_path / n for n in ("Roe.nii.gz", "std.nii.gz", "report.html"))
    options = ("--factor", 2, "--samples", 2, "--steps", 1, "--seed", 5, "--device", "cpu")
    files = (stack_file, out, "--uncertainty", spread, "--report", html)
    program.main([str(word) for word in ("reconstruct", *files, *options)])
    assert str(html) in capsys.readouterr().out
    page = html.read_text(encoding="utf-8")
    words = re.sub(r"base64,[^\"]+", "", page)  # pictures spell anything by chance
    assert len(words) < len(page) / 2
    record = json.loads((tmp_path / "Roe.json").read_text())
    assert record["files_sha256"]["report"] == sha256(html)
    for hidden in ("Mustermann", "Doe", "Jane", "Roe", str(tmp_path), tmp_path.name):
        assert hidden not in words
    assert "<li>INPUT: neither sform nor qform is set." in page
    assert record["files_sha256"]["output"] in page
    assert record["input"]["sha256"] in page
    assert page.count("data:image/png") == 4
    assert "On your data CaLID" in page

    # Its command asks for the same again.
    line = unescape(re.sub("<[^>]*>", "", re.search('<p class="command">(.*?)</p>', page)[1]))
    words = shlex.split(line)
    assert words[:4] == ["calid", "reconstruct", "INPUT", "OUTPUT"]
    verb = program._parse(words[1:]).verb
    assert (verb.factor, verb.samples, verb.steps, verb.seed) == (2, 2, 1, 5)
    assert verb.uncertainty == Path("UNCERTAINTY")
    settings = record["settings"]
    assert settings.pop("frames_together") == 1
    assert settings.pop("whole_heartbeat") is None
    assert {name: getattr(verb, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("typed", "text", "expected"),
    [
        ("in/Doe.nii.gz", "in/Doe.nii.gz: one slice", "INPUT: one slice"),
        ("in/Doe.nii.gz", "of Doe.nii.gz (pixdim)", "of INPUT (pixdim)"),
        ("in/Doe.nii.gz", "series of Doe, not of Doerte", "series of INPUT, not of Doerte"),
        ("exam", "exam: 3 images are left out", "INPUT: 3 images are left out"),
        (".", ".: 3 images are left out. See why.", "INPUT: 3 images are left out. See why."),
    ],
)
def test_names_stand_for_paths(typed, text, expected, tmp_path, monkeypatch):
    assert without_paths(text, {"INPUT": Path(typed)}) == expected
    monkeypatch.chdir(tmp_path)
    absolute = f"{tmp_path / 'Doe.nii'}: torn"
    assert without_paths(absolute, {"INPUT": Path("Doe.nii")}) == "INPUT: torn"


def test_the_command_has_what_was_decided_and_no_path():
    generation = Generation(spacing=2.5, samples=4, weights=Path("Mustermann"))
    reading = Reading(spacing_from="pixdim", fill=0.0)
    settings = {"samples": 4, "steps": 5, "frames_together": 6}
    line = again(generation, reading, settings, uncertainty=False)
    assert line == (
        "calid reconstruct INPUT OUTPUT --spacing 2.5 --samples 4 --steps 5 "
        "--weights WEIGHTS --spacing-from pixdim --fill 0.0"
    )
    verb = program._parse(shlex.split(line)[1:]).verb
    assert verb.reading == reading
    assert not verb.frame_by_frame
    other = Generation(frame_by_frame=True, region="whole")
    line = again(other, Reading(), settings, uncertainty=False)
    verb = program._parse(shlex.split(line)[1:]).verb
    assert (verb.frame_by_frame, verb.region) == (True, "whole")


def test_warnings_are_noted_and_still_shown(monkeypatch):
    shown: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", lambda text, *rest: shown.append(str(text)))
        with warnings_noted() as notes:
            warnings.warn("mine", CalidWarning, stacklevel=1)
            warnings.warn("another's", UserWarning, stacklevel=1)
        warnings.warn("later", CalidWarning, stacklevel=1)
    assert notes == ["mine"]
    assert shown == ["mine", "another's", "later"]
