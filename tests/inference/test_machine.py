from __future__ import annotations

from pathlib import Path

import pytest

from calid.inference.machine import available_cpus, cpu_model


def test_there_is_a_cpu():
    assert available_cpus() >= 1


@pytest.mark.parametrize("listed", ["model name : Fast One\nmodel name : Fast One\n", ""])
def test_its_model_is_said_as_far_as_it_is_known(listed, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: listed)
    assert (cpu_model() == "Fast One") == bool(listed)
    assert cpu_model()


def test_without_a_list_of_processors_there_is_still_a_name(monkeypatch):
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert cpu_model()
