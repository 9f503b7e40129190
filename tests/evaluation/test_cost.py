"""Costs: tiny workloads, most of them in this process; one in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from command_line import run

from calid.baselines.rules import linear
from calid.errors import CalidError
from calid.evaluation.cost import (
    FILM,
    FILM_METHODS,
    HEART,
    METHODS,
    Costed,
    Workload,
    cost_table,
    measure,
    measure_cost,
    peak_memory,
)
from calid.evaluation.pixel_diffusion import CODE, PixelUNet
from calid.inference.densify import densify
from calid.inference.options import Generation

SMALL = Workload("heart", slices=3, factor=2, side=32)
LINEAR = Costed("linear", "linear")
PIXELS = Costed("pixels", "pixel-diffusion", base=4)


Asked = list[tuple[tuple[int, ...], Generation]]


@pytest.fixture
def asked(monkeypatch) -> Asked:
    """What was asked of our method, which interpolates linearly here."""
    found: Asked = []

    def reconstruct(stack, wanted, *, model):
        found.append((stack.shape, wanted))
        return densify(stack, linear, wanted.factor)

    monkeypatch.setattr("calid.inference.model.load_model", lambda *options: None)
    monkeypatch.setattr("calid.inference.reconstruct.reconstruct", reconstruct)
    return found


@pytest.fixture(scope="module")
def costs():
    done: list[int] = []
    found = measure_cost((LINEAR, PIXELS), SMALL, "cpu", done.append)
    assert done == [1, 2]
    return found


def result(method: str, seconds: float, **more) -> dict[str, object]:
    kind = {"linear": "linear", "pixels": "pixel-diffusion"}.get(method, "calid")
    usual = {"load_seconds": 1.0, "peak_mb": 100.0, "gpu_peak_mb": None, "gpu": None}
    usual["operations"] = None
    known = {"extrapolated": False, "basis": "", "seconds": seconds}
    return {"method": method, "kind": kind, "workload": "heart"} | usual | known | more


def table_of(*results: dict[str, object]) -> str:
    work = vars(HEART) | {"dense_slices": HEART.dense_slices}
    machine = {"processor": "abacus", "cores": 2, "system": "x"}
    return cost_table({"machine": machine, "workloads": [work], "results": list(results)})


def test_every_costed_method_has_a_row_of_its_own():
    names = [method.name for method in METHODS]
    assert len(names) == len(set(names))
    assert {"linear", "calid", "pixel-diffusion"} <= {method.kind for method in METHODS}


@pytest.mark.slow
def test_every_method_is_measured_in_a_process_of_its_own(costs):
    ours, theirs = costs["results"]
    assert [r["method"] for r in costs["results"]] == ["linear", "pixels"]
    assert costs["workloads"][0]["dense_slices"] == 5
    assert ours["operations"] is None
    for row in (ours, theirs):
        assert row["seconds"] > 0
        assert row["load_seconds"] > 0
        assert 0 < row["loaded_mb"] <= row["peak_mb"]
        assert row["gpu"] is row["gpu_peak_mb"] is None
    # This process holds torch and scipy; linear needs neither, and its peak shows that.
    assert ours["peak_mb"] < 0.7 * peak_memory()
    assert ours["peak_mb"] < theirs["peak_mb"]
    assert not ours["extrapolated"]
    assert theirs["extrapolated"]
    json.dumps(costs, allow_nan=False)
    broken = Costed("broken", "pixel-diffusion", base=-4)
    with pytest.raises(CalidError, match=r"broken: .*could not be measured: \w+"):
        measure_cost((broken,), SMALL, "cpu")


@pytest.mark.slow
def test_memory_grows_by_what_is_held_and_stays_at_its_peak():
    lines = (
        "from calid.evaluation.cost import peak_memory",
        "marks = [peak_memory()]",
        "held = bytearray(b'x') * 300_000_000",
        "marks.append(peak_memory())",
        "del held",
        "marks.append(peak_memory())",
        "print(*marks)",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, grown, after = map(float, printed.split())
    assert before < 200
    assert grown == pytest.approx(before + 300, abs=5)
    assert after == pytest.approx(grown, abs=1)  # the kernel counts in batches of pages


def test_our_model_is_asked_for_the_whole_heart_with_its_settings(asked):
    found = measure(Costed("ours", "calid", samples=3), SMALL, "cpu")
    first, heart, counted = asked
    # One sample more to count the operations of each; there are none in this model.
    wanted = Generation(factor=2, samples=3, device="cpu", region="whole")
    assert counted == ((1, 3, 32, 32), replace(wanted, samples=1))
    assert found["operations"] == 0
    assert heart == ((1, 3, 32, 32), wanted)
    assert first[0][1] == 2  # the tiny run that loading counts
    assert not found["extrapolated"]
    assert found["basis"] == ""


def test_the_heart_is_looked_for_where_networks_stay_around_it(asked):
    measure(Costed("ours", "calid", samples=0, region="heart"), SMALL, "cpu")
    assert [wanted.region for _, wanted in asked] == ["heart"] * 3
    assert {m.region for m in METHODS if m.name == "calid"} == {"heart"}


def test_a_film_is_made_whole(asked):
    film = replace(SMALL, name="film", frames=4)
    found = measure(Costed("ours", "calid"), film, "cpu")
    assert [shape for shape, _ in asked] == [(1, 2, 32, 32), (4, 3, 32, 32), (4, 3, 32, 32)]
    assert not found["extrapolated"]
    assert (FILM.frames, FILM.slices, FILM.dense_slices, FILM.side) == (30, 10, 64, 256)
    kinds = {method.kind for method in FILM_METHODS}
    assert {"linear", "calid"} <= kinds
    assert "pixel-diffusion" not in kinds  # which is extrapolated


@pytest.mark.slow
def test_one_command_writes_the_cost_of_a_film(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("calid.evaluation.cost.FILM", replace(SMALL, name="film", frames=4))
    monkeypatch.setattr("calid.evaluation.cost.FILM_METHODS", FILM_METHODS[0::2])
    assert run("evaluate", "phantoms", "--protocol", "cost-film", "--out", tmp_path) == 0
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["workloads"] == [
        {"name": "film", "slices": 3, "factor": 2, "side": 32, "frames": 4, "dense_slices": 5}
    ]
    assert [row["method"] for row in record["results"]] == ["linear", "calid"]
    assert all(row["seconds"] > 0 < row["peak_mb"] for row in record["results"])
    table = (tmp_path / "table.md").read_text()
    assert table.startswith("film: 3 slices to 5, 4 frames, 32 x 32 pixels, on ")
    assert table in capsys.readouterr().out


@pytest.mark.slow
def test_regression_runs_with_a_network_of_its_own():
    found = measure(Costed("regression", "regression"), SMALL, "cpu")
    assert found["seconds"] > 0
    assert found["operations"] > 1e8


@pytest.mark.slow
def test_pixel_diffusion_is_extrapolated_to_all_its_evaluations(monkeypatch):
    clock = iter(float(t) for t in range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    found = measure(PIXELS, SMALL, "cpu")
    # Three slices to encode and two between them to render, a second each.
    assert found["seconds"] == 5 * 100
    assert found["operations"] > 500 * 1e6
    assert "2 of 500 evaluations of an untrained U-Net" in found["basis"]
    assert "(3 x 100 to encode, 2 x 100 to render)" in found["basis"]


def test_the_network_has_the_published_size():
    with torch.device("meta"):
        network = PixelUNet()
    size = sum(p.numel() for p in network.parameters())
    assert 100e6 < size < 200e6
    widths = [m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert max(widths) == 3 * 512  # queries, keys and values of the widest level


def test_the_network_attends_where_256_pixels_have_become_16():
    seen = []
    network = PixelUNet(4).eval()
    for module in network.modules():
        if type(module).__name__ == "_Attention":
            module.register_forward_hook(lambda m, args, out: seen.append(out.shape[-1]))
    with torch.no_grad():
        out = network(torch.zeros(1, 1, 256, 256), torch.zeros(1), torch.zeros(1, CODE))
    assert out.shape == (1, 1, 256, 256)
    assert seen == [16, 16, 8, 16, 16, 16]


def test_the_network_listens_to_time_and_code():
    torch.manual_seed(0)
    network = PixelUNet(8, (1, 2), attend=1).eval()
    x, t, code = torch.randn(1, 1, 16, 16), torch.full((1,), 0.3), torch.randn(1, CODE)
    with torch.no_grad():
        out = network(x, t, code)
        assert not torch.allclose(out, network(x, t + 0.4, code))
        assert not torch.allclose(out, network(x, t, code + 1))


def test_the_table_begins_with_ratios():
    text = table_of(
        result("linear", 0.5, peak_mb=50.0),
        result("ours", 10.0, load_seconds=2.5, peak_mb=200.0, operations=3e12),
        result(
            "pixels",
            4000.0,
            peak_mb=400.0,
            operations=6e15,
            extrapolated=True,
            basis="2 of 6400.",
        ),
    )
    lines = text.splitlines()
    assert lines[0].startswith("heart: 10 slices to 64")
    assert "abacus, 2 core(s)" in lines[0]
    assert "| ours | 400 | 0.0005 | 0.5 | 20 | 10 | 3 | 2.5 | 200 |  |" in lines
    assert "| pixels | 1 | 1 | 1 | 8e+03 | 4e+03 * | 6e+03 | 1 | 400 |  |" in lines
    assert any(line.startswith("| linear | 8e+03 |  | 0.125 | 1 | 0.5 |  |") for line in lines)
    assert "\\* pixels: 2 of 6400." in lines


def test_the_table_does_without_what_was_not_measured():
    text = table_of(result("ours", 10.0, gpu="GPU 1", gpu_peak_mb=7.0))
    assert "| ours |  | 10 |  | 1 | 100 | 7 |" in text
    assert "pixel diffusion" not in text
    assert "abacus, 2 core(s), GPU 1" in text
    assert "\\*" not in text
