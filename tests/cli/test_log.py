"""The log of a run: JSON lines of listed fields, nothing else."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from command_line import run, write_nifti

from calid.cli import info

ALWAYS = {"time", "level", "event"}
OTHERS = {"verb", "version", "options", "seconds", "warnings", "error", "where", "exit_code"}


def lines(path: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for line in found:
        assert ALWAYS <= set(line) <= ALWAYS | OTHERS
        assert datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0
    return found


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    constant = np.ones((20, 10, 5), np.int16)  # worth a warning
    return write_nifti(tmp_path / "Doe_Jane.nii.gz", constant, np.eye(4))


def test_a_run_is_logged_from_start_to_finish(tmp_path):
    log = tmp_path / "run.jsonl"
    assert run("info", "--json", "--log-json", log) == 0
    start, finish = lines(log)
    assert (start["event"], start["level"], start["verb"]) == ("start", "info", "info")
    assert start["options"] == {"json": True}
    assert (finish["event"], finish["exit_code"], finish["warnings"]) == ("finish", 0, 0)
    assert finish["seconds"] >= 0


def test_runs_are_appended_wherever_the_option_stands_and_stages_are_told_apart(tmp_path):
    log = tmp_path / "run.log"
    assert run("--log-json", log, "info") == 0
    folders = ("--data", tmp_path / "Doe", "--out", tmp_path / "out")
    assert run("train", "segmentation", *folders, f"--log-json={log}") == 8
    assert [line["event"] for line in lines(log)] == ["start", "finish", "start", "error"]
    assert lines(log)[2]["verb"] == "train segmentation"
    assert "Doe" not in log.read_text()


def test_an_error_is_logged_with_code_and_place_but_without_its_text(tmp_path, capsys):
    log = tmp_path / "run.json"
    source = tmp_path / "Doe_Jane.nii.gz"
    assert run("reconstruct", source, tmp_path / "out.nii", "--dial", 0.5, "--log-json", log) == 3
    start, error = lines(log)
    assert start["options"].items() >= {"seed": 0, "dial": 0.5}.items()
    assert all(isinstance(value, bool | int | float) for value in start["options"].values())
    assert (error["event"], error["level"]) == ("error", "error")
    assert (error["error"], error["exit_code"]) == ("InputError", 3)
    assert error["where"].startswith("calid.io.nifti:")
    assert "Doe" not in log.read_text()
    assert "Doe" in capsys.readouterr().err


def test_a_command_that_cannot_be_understood_is_logged(tmp_path):
    for number, arguments in enumerate(
        [
            ("reconstruct", "--log-json", tmp_path / "0.jsonl"),
            ("info", "--magic", f"--log-json={tmp_path / '1.jsonl'}"),
        ]
    ):
        assert run(*arguments) == 2
        (error,) = lines(tmp_path / f"{number}.jsonl")
        assert (error["error"], error["exit_code"]) == ("UsageError", 2)


def test_help_is_no_error(tmp_path):
    assert run("info", "--help", "--log-json", tmp_path / "run.jsonl") == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_warnings_are_logged_without_their_text(stack_file, tmp_path, capsys):
    log = tmp_path / "run.jsonl"
    short = ("--factor", 1, "--device", "cpu")
    assert run("reconstruct", stack_file, tmp_path / "out.nii", *short, "--log-json", log) == 0
    _, *told, finish = lines(log)
    assert told
    assert all((line["event"], line["error"]) == ("warning", "CalidWarning") for line in told)
    assert finish["warnings"] == len(told) == capsys.readouterr().err.count("warning ")
    assert "Doe" not in log.read_text()


@pytest.mark.parametrize(
    ("failure", "code"), [(KeyboardInterrupt(), 130), (RuntimeError("Doe^Jane"), None)]
)
def test_interruptions_and_faults_of_ours_are_logged(failure, code, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(info, "describe_weights", fail)
    log = tmp_path / "run.jsonl"
    if code is None:
        with pytest.raises(RuntimeError):
            run("info", "--log-json", log)
    else:
        assert run("info", "--log-json", log) == code
    error = lines(log)[-1]
    assert error["error"] == type(failure).__name__
    assert error["exit_code"] == (code or 1)
    assert error["where"].startswith("calid.cli.info:")
    assert "Doe" not in log.read_text()


def test_a_log_may_not_be_a_file_of_the_run(stack_file, tmp_path, capsys):
    before = stack_file.read_bytes()
    out = tmp_path / "out.nii"
    for log in (stack_file, out, tmp_path / "out.json", tmp_path / "absent" / "run.jsonl"):
        assert run("reconstruct", stack_file, out, "--log-json", log) == 6
    link = tmp_path / "link.jsonl"
    link.symlink_to(stack_file)
    assert run("reconstruct", stack_file, out, "--log-json", link) == 6
    assert run("reconstruct", "--log-json", stack_file) == 2
    assert stack_file.read_bytes() == before
    assert not out.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_cannot_be_written_stops_the_run_before_it_starts(tmp_path, capsys):
    log = tmp_path / "run.jsonl"
    log.symlink_to("/dev/full")
    assert run("info", "--log-json", log) == 6
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "log could not be written" in captured.err
