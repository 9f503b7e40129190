from __future__ import annotations

import csv
import json

import pytest
from cohort_jobs import subjects_named

from calid.cohort import summary as module
from calid.cohort.subject import Outcome, Queue
from calid.cohort.summary import DESCRIPTION, Summary, prepare_dataset
from calid.errors import OutputError


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_line_a_subject_in_their_order(tmp_path):
    table = Summary(tmp_path / "summary.csv", subjects_named("abc"))
    table.add(Outcome("c", "done", seconds=1.23456, slices=9, sha256="f00"))
    table.add(Outcome("a", "failed", 4, 'It is "bent", badly.', "Straighten it."))
    table.write()
    first, last = rows(tmp_path / "summary.csv")
    assert (first["subject"], first["status"], first["exit_code"]) == ("a", "failed", "4")
    assert first["rule"] == 'It is "bent", badly.'
    assert first["source"] == "/in/a"
    assert (last["subject"], last["seconds"], last["slices"]) == ("c", "1.235", "9")
    assert [outcome.subject for outcome in table.of_status("done", "failed")] == ["a", "c"]
    assert table.of_status("lost") == []


def test_the_table_is_on_disk_before_the_end(tmp_path, monkeypatch):
    table = Summary(tmp_path / "summary.csv", subjects_named("ab"))
    table.add(Outcome("a", "done"))
    assert not (tmp_path / "summary.csv").exists()
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    table.add(Outcome("b", "done"))
    assert len(rows(tmp_path / "summary.csv")) == 2


def test_outputs_are_a_bids_derivative(tmp_path):
    prepare_dataset(tmp_path / "derivatives/calid")
    prepare_dataset(tmp_path / "derivatives/calid")  # a second run, or another shard
    content = json.loads((tmp_path / "derivatives/calid" / DESCRIPTION).read_text())
    assert content["DatasetType"] == "derivative"
    assert content["BIDSVersion"]
    assert content["Name"]
    assert content["GeneratedBy"][0]["Name"] == "calid"


@pytest.mark.parametrize("content", ['{"Name": "raw"}', '{"GeneratedBy": [{"Name": "x"}]}', "["])
def test_the_dataset_of_others_is_left_alone(content, tmp_path):
    (tmp_path / DESCRIPTION).write_text(content)
    with pytest.raises(OutputError, match="did not make"):
        prepare_dataset(tmp_path)
    assert (tmp_path / DESCRIPTION).read_text() == content


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        prepare_dataset(tmp_path / "out" / "deeper")


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_a_subject_whose_worker_died_is_next_as_often_as_allowed(retries):
    first, second = subjects_named("ab")
    queue = Queue([first, second], retries)
    for _ in range(retries):
        assert queue.take() == first
        assert queue.died(first) is None
    assert queue.take() == first
    outcome = queue.died(first)
    assert (outcome.status, outcome.attempts) == ("lost", retries + 1)
    assert (queue.take(), queue.attempts[second], len(queue)) == (second, 1, 0)
