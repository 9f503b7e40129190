from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Thread

import pytest
from cohort_jobs import Scribe, Stillborn, Unready, subjects_named

from calid.cohort.local import LocalEngine
from calid.errors import CohortError, WeightsError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """One run of two workers over good, bad and deadly subjects."""
    scribe = Scribe(tmp_path_factory.mktemp("out"))
    good = [f"good{n}" for n in range(8)]
    names = ["broken", *good[:2], "once", "bug", *good[2:5], "deadly", *good[5:]]
    outcomes = list(LocalEngine(2).run(scribe, subjects_named(names)))
    return scribe, names, {o.subject: o for o in outcomes}, len(outcomes)


def test_every_subject_has_one_outcome(mixed):
    _, names, outcomes, count = mixed
    assert set(outcomes) == set(names)
    assert count == len(names)


def test_good_subjects_are_made_once_whatever_befalls_the_others(mixed):
    scribe, names, outcomes, _ = mixed
    good = {name for name in names if name.startswith("good")}
    assert scribe.made() == dict.fromkeys(good | {"once"}, 1)
    for name in good:
        assert outcomes[name].status == "done"
        assert (outcomes[name].slices, outcomes[name].sha256) == (7, f"hash of {name}")
        assert outcomes[name].attempts == 1
        assert outcomes[name].seconds >= 0.05


def test_an_error_is_the_outcome_of_its_subject(mixed):
    _, _, outcomes, _ = mixed
    broken, bug = outcomes["broken"], outcomes["bug"]
    assert (broken.status, broken.exit_code, broken.rule) == ("failed", 4, "It is bent.")
    assert (bug.status, bug.exit_code) == ("failed", 1)
    assert bug.rule == "Unexpected ZeroDivisionError: nothing to share"


def test_a_subject_whose_worker_died_is_begun_again_once(mixed):
    scribe, _, outcomes, _ = mixed
    assert (outcomes["once"].status, outcomes["once"].attempts) == ("done", 2)
    deadly = outcomes["deadly"]
    assert (deadly.status, deadly.attempts, deadly.exit_code) == ("lost", 2, 1)
    assert len((scribe.out / "deadly.begun").read_text().splitlines()) == 2


def test_workers_are_set_up_once_and_replaced_when_they_die(mixed):
    scribe, _, _, _ = mixed
    # Two, and one more for each of the three deaths; the last may have been unneeded.
    assert 4 <= len(list(scribe.out.glob("worker-*"))) <= 5


def kill(begun: Path) -> None:
    """Kill the worker that is stuck, once it is."""
    while not (begun.exists() and begun.read_text().endswith("\n")):
        time.sleep(0.05)
    os.kill(int(begun.read_text().split()[0]), signal.SIGKILL)


def test_a_worker_killed_from_outside_loses_nothing(tmp_path):
    scribe = Scribe(tmp_path)
    names = ["stuck", "a", "b"]
    killer = Thread(target=kill, args=(tmp_path / "stuck.begun",))
    killer.start()
    outcomes = {o.subject: o for o in LocalEngine(2).run(scribe, subjects_named(names))}
    killer.join()
    assert {name: o.status for name, o in outcomes.items()} == dict.fromkeys(names, "done")
    assert scribe.made() == dict.fromkeys(names, 1)


def test_no_worker_outlives_a_run_that_is_left(tmp_path):
    scribe = Scribe(tmp_path)
    run = LocalEngine(2).run(scribe, subjects_named(["stuck", "a", "b", "c"]))
    next(run)
    run.close()
    for worker in tmp_path.glob("worker-*"):
        assert not Path("/proc", worker.name.split("-")[1]).exists()


def test_a_worker_that_cannot_be_set_up_ends_the_run_with_its_error():
    with pytest.raises(WeightsError, match="damaged"):
        list(LocalEngine(1).run(Unready(), subjects_named("ab")))


def test_workers_that_die_at_birth_end_the_run():
    with pytest.raises(CohortError, match="3 workers in a row"):
        list(LocalEngine(1).run(Stillborn(), subjects_named("ab")))


def test_no_subjects_no_workers(tmp_path):
    assert list(LocalEngine(2).run(Scribe(tmp_path), [])) == []
    assert not list(tmp_path.iterdir())
