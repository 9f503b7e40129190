"""Which outputs of an earlier run are kept, and which are made again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path, PurePosixPath

import pytest

from calid.cohort.resume import Valid
from calid.cohort.subject import Subject
from calid.errors import UsageError
from calid.inference.options import Generation, Reading
from calid.io.sidecar import sha256, write_json

TARGET = PurePosixPath("sub-1/anat/sub-1_desc-calid_sax.nii.gz")


@pytest.fixture
def finished(tmp_path) -> tuple[Valid, Subject, Path]:
    """A subject with a valid output and its record."""
    valid, source, out = (
        Valid.of(Generation(factor=2), Reading()),
        tmp_path / "heart.nii",
        tmp_path / "out",
    )
    source.write_bytes(b"sparse")
    (out / TARGET).parent.mkdir(parents=True)
    (out / TARGET).write_bytes(b"dense")
    record = {
        "input": {"sha256": sha256(source)},
        "output": {"shape": [1, 9, 4, 4]},
        "files_sha256": {"output": sha256(out / TARGET)},
        "reading": valid.reading,
        "request": valid.request,
        "weights_sha256": valid.weights,
        "software": valid.software,
    }
    write_json(record, record_path(out))
    return valid, Subject(TARGET, source), out


def record_path(out: Path) -> Path:
    return out / str(TARGET).replace(".nii.gz", ".json")


def test_a_valid_output_is_kept_with_its_figures(finished):
    valid, subject, out = finished
    outcome = valid.kept(subject, out)
    assert outcome is not None
    assert (outcome.status, outcome.slices, outcome.exit_code) == ("kept", 9, 0)
    assert outcome.sha256 == sha256(out / TARGET)
    assert list(valid.sift([subject, subject], out)) == [outcome, outcome]


def no_output(out: Path, subject: Subject) -> None:
    (out / TARGET).unlink()


def no_record(out: Path, subject: Subject) -> None:
    record_path(out).unlink()


def other_bytes(out: Path, subject: Subject) -> None:
    (out / TARGET).write_bytes(b"dense!")


def half_a_record(out: Path, subject: Subject) -> None:
    record_path(out).write_text(record_path(out).read_text()[:-40])


def a_list(out: Path, subject: Subject) -> None:
    record_path(out).write_text("[]")


def another_input(out: Path, subject: Subject) -> None:
    subject.source.write_bytes(b"sparser")


def no_input(out: Path, subject: Subject) -> None:
    subject.source.unlink()


def without(key: str):
    def spoil(out: Path, subject: Subject) -> None:
        record = json.loads(record_path(out).read_text())
        del record[key]
        record_path(out).write_text(json.dumps(record))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [no_output, no_record, other_bytes, half_a_record, a_list, another_input, no_input]
    + [
        without(key)
        for key in (
            "input",
            "output",
            "files_sha256",
            "request",
            "reading",
            "weights_sha256",
            "software",
        )
    ],
)
def test_anything_else_is_made_again(spoil, finished):
    valid, subject, out = finished
    spoil(out, subject)
    assert valid.kept(subject, out) is None


@pytest.mark.parametrize(
    "generation",
    [
        Generation(factor=3),
        Generation(spacing=5.0),
        Generation(factor=2, samples=2),
        Generation(factor=2, seed=1),
        Generation(factor=2, steps=2),
        Generation(factor=2, dial=0.5),
        Generation(factor=2, preset="paper"),
    ],
)
def test_other_options_make_another_output(generation, finished):
    _, subject, out = finished
    assert Valid.of(generation, Reading()).kept(subject, out) is None


def test_another_device_or_the_default_spelt_out_does_not(finished):
    _, subject, out = finished
    generation = Generation(factor=2, samples=0, device="cpu")
    assert Valid.of(generation, Reading()).kept(subject, out) is not None


@pytest.mark.parametrize("field", ["weights", "software"])
def test_other_weights_or_another_release_make_another_output(field, finished):
    valid, subject, out = finished
    other = dataclasses.replace(valid, **{field: dict.fromkeys(getattr(valid, field), "other")})
    assert other.kept(subject, out) is None


@pytest.mark.parametrize(
    "options",
    [{"factor": 2, "spacing": 1.0}, {"factor": 0}, {"spacing": -1.0}, {"samples": -1}, {"seed": -1},
     {"steps": 0}, {"dial": -1.0}],
)  # fmt: skip
def test_options_are_refused_before_any_stack_is_read(options):
    with pytest.raises(UsageError):
        Generation(**options).answer()
