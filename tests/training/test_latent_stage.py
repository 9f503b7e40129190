"""Stage 2 on tuples: losses against their closed forms, and a few steps with tiny networks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calid.models.interpolator import DEFAULT, PAPER, LatentInterpolator, start
from calid.models.store import load_tensors
from calid.training.latent_interpolator import (
    NoiseObjective,
    ResidualObjective,
    TransportObjective,
    TupleBatch,
    interpolator_task,
    transport_task,
)
from calid.training.loop import FitConfig, Task, fit
from calid.training.tuples import Tuples

CPU = torch.device("cpu")
CHANNELS = 2
SMALL = {"channels": CHANNELS, "widths": (8, 16), "denoiser": (16, 8), "embedding": 16}
STAGES = ("default", "transport", "paper")


def tuples(count: int = 24, seed: int = 0) -> Tuples:
    """Targets that are the mean of their neighbours plus a pattern, so that there is to learn."""
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(count, 2, CHANNELS, 8, 8, generator=generator)
    pattern = torch.linspace(-1, 1, 8).expand(CHANNELS, 8, 8)
    target = pair.mean(1, keepdim=True) + pattern
    latents = torch.cat([target, pair], 1).flatten(0, 1).half()
    first = 3 * torch.arange(count)[:, None]
    index = torch.cat([first, first + 1, first + 2, *2 * [torch.full_like(first, -1)]], 1)
    half = torch.where(torch.arange(count) % 2 == 0, 5.0, 10.0)
    none = torch.zeros(count)
    return Tuples(latents, pair.half(), index, torch.stack([-half, half, none, none], 1))


def model(stage: str) -> LatentInterpolator:
    torch.manual_seed(0)
    return LatentInterpolator(dataclasses.replace(PAPER if stage == "paper" else DEFAULT, **SMALL))


def task_of(stage: str, weights: Path, train: Tuples | None = None) -> Task:
    make = transport_task if stage == "transport" else interpolator_task
    return make(model(stage), train or tuples(), tuples(12, 1), weights, 8, 0, CPU)


def batch_of(count: int = 6, mean: Tensor | None = None) -> TupleBatch:
    truth, neighbours = tuples(count).batch(torch.arange(count), CPU)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    uniform = (torch.arange(count) + 0.5) / count
    return TupleBatch(truth, neighbours, noise, uniform, mean)


@torch.no_grad()
def test_an_untrained_network_has_the_loss_of_predicting_nothing() -> None:
    batch = batch_of()
    assert float(NoiseObjective(model("paper"))(batch)["loss"]) == pytest.approx(
        float(batch.noise.square().mean()), rel=1e-5
    )
    terms = ResidualObjective(model("default"))(batch)
    gate = batch.neighbours.gate
    error = (batch.neighbours.blend - batch.truth) / gate
    assert float(terms["regression"]) == pytest.approx(float(error.square().mean()), rel=1e-4)
    residual = -error / DEFAULT.residual
    flow = (batch.noise - residual).square().mean()
    assert float(terms["flow"]) == pytest.approx(float(flow), rel=1e-4)
    assert float(terms["loss"]) == pytest.approx(float(terms["regression"] + flow / 2), rel=1e-4)


@torch.no_grad()
def test_the_transport_is_asked_for_the_way_from_its_start_to_the_truth() -> None:
    batch = batch_of(mean=batch_of().neighbours.blend + 0.5)
    network = model("default")
    assert batch.mean is not None
    begin = start(batch.neighbours, batch.mean, batch.noise, network.config)
    wanted = ((batch.truth - begin) / batch.neighbours.gate).square().mean()
    loss = TransportObjective(network)(batch)["loss"]
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)

    class Exact(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            there = t[:, None, None, None]
            torch.testing.assert_close(x, (1 - there) * begin + there * batch.truth)
            return batch.truth - begin

    objective = TransportObjective(network)
    objective.transport = Exact()  # type: ignore[assignment]
    assert float(objective(batch)["loss"]) == 0


def test_the_flow_does_not_move_the_mean() -> None:
    objective = ResidualObjective(model("default"))
    terms = objective(batch_of())
    (terms["loss"] - terms["regression"]).backward()
    with_flow = [p.grad.clone() for p in objective.interpolator.tau_1.exit.parameters()]
    objective.zero_grad()
    objective.flow = 0.0
    objective(batch_of())["loss"].backward()
    alone = [p.grad for p in objective.interpolator.tau_1.exit.parameters()]
    for one, other in zip(with_flow, alone, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("stage", STAGES)
def test_a_few_steps_lower_the_error_on_other_tuples(stage: str, tmp_path: Path) -> None:
    task = task_of(stage, tmp_path / "w.safetensors")
    before = task.validate()["loss"]
    config = FitConfig(steps=60, rate=5e-3, warmup=4, decay=0.9, validate_every=60)
    fit(task, tmp_path, config, CPU, resume=False)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    after = lines[-1]["validation"]
    assert after["loss"] < before
    assert {"narrow_loss", "wide_loss"} <= after.keys()
    assert lines[-2]["tuples_per_second"] > 0
    assert lines[-2]["left"] == 0
    state, _ = load_tensors(tmp_path / "w.safetensors", "interpolator")
    assert {k.split(".")[0] for k in state} >= {"tau_1", "tau_2", "denoiser"}


@pytest.mark.parametrize(
    ("stage", "moving"), [("default", {"tau_1", "tau_2", "denoiser"}), ("transport", {"transport"})]
)
def test_each_training_moves_its_own_networks_alone(
    stage: str, moving: set[str], tmp_path: Path
) -> None:
    task = task_of(stage, tmp_path / "w.safetensors")
    learning = [k for k, p in task.objective.named_parameters() if p.requires_grad]
    networks = {"tau_1", "tau_2", "denoiser", "transport"}
    assert {name for key in learning for name in key.split(".")} & networks == moving


@pytest.mark.parametrize("stage", STAGES)
def test_batches_are_a_pure_function_of_seed_step_and_rank(stage: str, tmp_path: Path) -> None:
    draw = task_of(stage, tmp_path / "w").batch
    one, same, other = draw(3, 0), draw(3, 0), draw(3, 1)
    assert isinstance(one, TupleBatch) and isinstance(same, TupleBatch)  # noqa: PT018
    assert isinstance(other, TupleBatch)
    assert torch.equal(one.noise, same.noise)
    assert torch.equal(one.truth, same.truth)
    assert not torch.equal(one.noise, other.noise)
    # One time in each eighth.
    assert (one.uniform * 8).long().tolist() == list(range(8))


def test_the_paper_learns_from_targets_in_the_middle_of_their_gap(tmp_path: Path) -> None:
    train = tuples()
    distance = train.distance.clone()
    distance[::3, 0] *= 0.5
    train = dataclasses.replace(train, distance=distance)
    draw = task_of("paper", tmp_path / "w", train).batch
    for step in range(4):
        drawn = draw(step, 0)
        assert isinstance(drawn, TupleBatch)
        assert not drawn.neighbours.distance[:, :2].sum(1).any()
