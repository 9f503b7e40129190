"""Which outputs of an earlier run are kept, and which are made again."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import pytest

from calid.cohort.job import kept_outputs
from calid.cohort.subject import Outcome, Subject
from calid.errors import UsageError
from calid.inference.options import Generation, Reading
from calid.io.sidecar import sha256, write_json
from calid.weights import preset_weights, weights_path

TARGET = PurePosixPath("sub-1/anat/sub-1_desc-calid_sax.nii.gz")
ASKED = Generation(factor=2)


@pytest.fixture
def out(tmp_path) -> Path:
    """A folder with a valid output and its record; its input lies beside it."""
    folder = tmp_path / "out"
    (tmp_path / "heart.nii").write_bytes(b"sparse")
    (folder / TARGET).parent.mkdir(parents=True)
    (folder / TARGET).write_bytes(b"dense")
    content = {
        "input": {"sha256": sha256(tmp_path / "heart.nii")},
        "output": {"shape": [1, 9, 4, 4]},
        "files_sha256": {"output": sha256(folder / TARGET)},
        "reading": Reading().facts(),
        "request": ASKED.request(),
        "weights_sha256": {n: sha256(p) for n, p in preset_weights("default").items()},
        "software": {"name": "calid", "version": version("calid")},
    }
    write_json(content, record_of(folder))
    return folder


def record_of(out: Path) -> Path:
    return out / str(TARGET).replace(".nii.gz", ".json")


def kept(out: Path, generation: Generation = ASKED) -> Outcome | None:
    subject = Subject(TARGET, out.parent / "heart.nii")
    first, again = kept_outputs(generation, Reading(), [subject, subject], out)
    assert first == again
    return first


def change(out: Path, **fields: object) -> None:
    """Give the record other fields; without those that are None."""
    record = json.loads(record_of(out).read_text()) | fields
    write_json({k: v for k, v in record.items() if v is not None}, record_of(out))


def test_a_valid_output_is_kept_with_its_figures(out):
    outcome = kept(out)
    assert (outcome.status, outcome.slices, outcome.exit_code) == ("kept", 9, 0)
    assert outcome.sha256 == sha256(out / TARGET)
    assert kept(out, Generation(factor=2, samples=0, device="cpu")) == outcome


def test_an_output_is_kept_whether_or_not_the_network_found_the_heart(out):
    weights = json.loads(record_of(out).read_text())["weights_sha256"]
    change(out, weights_sha256=weights | {"segmentation": sha256(weights_path("segmentation"))})
    assert kept(out) is not None
    change(out, weights_sha256=weights | {"segmentation": "other"})
    assert kept(out) is None


SPOILT = {
    "no output": lambda out: (out / TARGET).unlink(),
    "other bytes": lambda out: (out / TARGET).write_bytes(b"dense!"),
    "no record": lambda out: record_of(out).unlink(),
    "half a record": lambda out: record_of(out).write_text(record_of(out).read_text()[:-40]),
    "a list": lambda out: record_of(out).write_text("[]"),
    "another input": lambda out: (out.parent / "heart.nii").write_bytes(b"sparser"),
    "no input": lambda out: (out.parent / "heart.nii").unlink(),
    "other weights": lambda out: change(out, weights_sha256={"default": "x", "autoencoder": "x"}),
    "another release": lambda out: change(out, software={"name": "calid", "version": "0.0.1"}),
} | {
    f"no {name}": lambda out, name=name: change(out, **{name: None})
    for name in ("input", "output", "files_sha256", "request", "reading", "weights_sha256")
}


@pytest.mark.parametrize("case", SPOILT)
def test_anything_else_is_made_again(case, out):
    SPOILT[case](out)
    assert kept(out) is None


@pytest.mark.parametrize(
    "options",
    [{"factor": 3}, {"factor": None, "spacing": 5.0}, {"samples": 2}, {"seed": 1}, {"steps": 2},
     {"dial": 0.5}, {"preset": "paper"}],
)  # fmt: skip
def test_other_options_make_another_output(options, out):
    assert kept(out, Generation(**{"factor": 2} | options)) is None


@pytest.mark.parametrize(
    "options",
    [{"factor": 2, "spacing": 1.0}, {"factor": 0}, {"spacing": -1.0}, {"samples": -1}, {"seed": -1},
     {"steps": 0}, {"dial": -1.0}],
)  # fmt: skip
def test_options_are_refused_before_any_stack_is_read(options):
    with pytest.raises(UsageError):
        Generation(**options).answer()
