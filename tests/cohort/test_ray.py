from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from cohort_jobs import Scribe, Stillborn, Unready, subjects_named

from calid.cohort import ray_engine
from calid.cohort.ray_engine import RayEngine
from calid.errors import CohortError, UsageError, WeightsError

SMALL = {"object_store_memory": 80 * 2**20}  # bytes: the least that Ray takes


@pytest.fixture(scope="module")
def cluster():
    """A head without room for workers, and two nodes with room for one each."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning
        # Workers must find this folder's modules.
        here = str(Path(__file__).parent)
        patch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
        import ray
        from ray.cluster_utils import Cluster

        own = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, **SMALL})
        for _ in range(2):
            own.add_node(num_cpus=1, **SMALL)
        try:
            ray.init(address=own.address, log_to_driver=False, logging_level="ERROR")
            yield own
        finally:
            ray.shutdown()
            own.shutdown()


def remove_node_of(cluster, begun: Path) -> None:
    """Kill the node on which a subject is stuck, once it is."""
    while not (begun.exists() and begun.read_text().endswith("\n")):
        time.sleep(0.05)
    name = begun.read_text().split()[1]
    (node,) = (node for node in cluster.worker_nodes if node.node_id == name)
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.nightly
def test_an_address_at_which_nobody_answers_is_said(tmp_path):
    pytest.importorskip("ray")
    import ray

    assert not ray.is_initialized()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # reserved, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match="No Ray cluster"):
            list(RayEngine(address).run(Scribe(tmp_path), subjects_named("ab")))


@pytest.mark.nightly
def test_a_worker_that_cannot_be_set_up_ends_the_run_with_its_error(cluster):
    with pytest.raises(WeightsError) as caught:
        list(RayEngine(workers=1).run(Unready(), subjects_named("ab")))
    assert caught.value.rule == "They are damaged."


@pytest.mark.nightly
def test_workers_that_die_at_birth_end_the_run(cluster, monkeypatch):
    monkeypatch.setattr(ray_engine, "SETUPS", 0)
    with pytest.raises(CohortError, match="died while they were set up"):
        list(RayEngine(workers=1).run(Stillborn(), subjects_named("ab")))


@pytest.mark.nightly
def test_a_cluster_without_room_is_said(cluster, tmp_path):
    with pytest.raises(UsageError, match="no room"):
        list(RayEngine(num_gpus=1).run(Scribe(tmp_path), subjects_named("ab")))


@pytest.mark.nightly
def test_a_dead_worker_and_a_dead_node_lose_nothing(cluster, tmp_path):
    scribe = Scribe(tmp_path)
    names = [f"good{n:02d}" for n in range(12)]
    names[2], names[4], names[6:6] = "once", "broken", ["stuck"]
    killer = Thread(target=remove_node_of, args=(cluster, tmp_path / "stuck.begun"))
    killer.start()
    outcomes = list(RayEngine().run(scribe, subjects_named(names)))
    killer.join()
    found = {outcome.subject: outcome for outcome in outcomes}
    assert len(outcomes) == len(found)
    assert set(found) == set(names)
    status = dict.fromkeys(names, "done") | {"broken": "failed"}
    assert {name: outcome.status for name, outcome in found.items()} == status
    assert scribe.made() == {name: 1 for name in names if name != "broken"}
    attempts = dict.fromkeys(names, 1) | {"once": 2, "stuck": 2}
    assert {name: outcome.attempts for name, outcome in found.items()} == attempts
    # Two at first, one for the dead worker; after the node only one had room.
    nodes = {
        line.split()[1] for p in tmp_path.glob("*.begun") for line in p.read_text().splitlines()
    }
    assert len(nodes) == 2
    assert len(list(tmp_path.glob("worker-*"))) >= 3


@pytest.mark.slow
def test_without_ray_the_remedy_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError) as caught:
        list(RayEngine().run(Scribe(tmp_path), subjects_named("ab")))
    assert caught.value.remedy == 'pip install "calid[ray]"'
