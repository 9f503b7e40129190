"""Stage 2 on tuples: losses against their closed forms, and a few steps with tiny networks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training.stages import CHANNELS, CPU, ON_TUPLES, model, perturb, task_of, tuples

from calid.baselines.learned import LEARNED, load_baseline, new_baseline, save_baseline
from calid.diffusion import variance_preserving
from calid.errors import UsageError
from calid.models.interpolator import DEFAULT, Encoded, LatentInterpolator, Neighbours, start
from calid.training.interpolator import (
    DiffusionAutoencoderObjective,
    MeanAndPosteriorObjective,
    NoiseObjective,
    TransportObjective,
    TupleBatch,
    noise_times,
)
from calid.training.loop import FitConfig, fit


def batch_of(count: int = 6, mean: Tensor | None = None) -> TupleBatch:
    truth, neighbours = tuples(count).batch(torch.arange(count), CPU)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    uniform = (torch.arange(count) + 0.5) / count
    return TupleBatch(truth, neighbours, noise, uniform, mean)


@torch.no_grad()
def test_an_untrained_network_has_the_loss_of_predicting_nothing() -> None:
    batch = batch_of()
    alpha, sigma = (c[:, None, None, None] for c in variance_preserving(noise_times(batch.uniform)))
    nothing = alpha * batch.noise - sigma * batch.truth
    assert float(NoiseObjective(model("paper"))(batch)["loss"]) == pytest.approx(
        float(nothing.square().mean()), rel=1e-3
    )
    terms = MeanAndPosteriorObjective(model("default"))(batch)
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
    config = network.config
    begin = start(batch.neighbours, batch.mean, config.approach)
    begin += config.start_noise * batch.neighbours.gate * batch.noise
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
    objective = MeanAndPosteriorObjective(model("default"))
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
@pytest.mark.parametrize("stage", ON_TUPLES)
def test_a_few_steps_lower_the_error_on_other_tuples(stage: str, tmp_path: Path) -> None:
    task = task_of(stage, tmp_path / "w.safetensors")
    before = task.validate()["loss"]
    config = FitConfig(steps=60, rate=5e-3, warmup=4, decay=0.9, validate_every=60)
    fit(task, tmp_path, config, CPU, resume=False)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["validation"]["loss"] < before
    assert lines[-2]["tuples_per_second"] > 0
    assert lines[-2]["left"] == 0


@torch.no_grad()
def test_figures_of_narrow_and_wide_gaps_are_parts_of_the_whole(tmp_path: Path) -> None:
    figures = task_of("paper", tmp_path / "w").validate()
    # Half of the tuples each; the noise is not the same.
    parts = (figures["narrow_loss"] + figures["wide_loss"]) / 2
    assert parts == pytest.approx(figures["loss"], rel=0.1)
    narrow = tuples(12, 1).chosen(torch.arange(0, 12, 2))
    alone = task_of("paper", tmp_path / "w", held_out=narrow).validate()
    assert alone.keys() == {"loss", "narrow_loss"}
    assert alone["loss"] == alone["narrow_loss"]


def test_the_transport_starts_from_means_in_the_precision_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: torch.dtype
) -> None:
    seen: list[bool] = []
    encode = LatentInterpolator.encode

    def watched(self: LatentInterpolator, neighbours: Neighbours) -> Encoded:
        seen.append(torch.is_autocast_enabled("cpu"))
        return encode(self, neighbours)

    monkeypatch.setattr(LatentInterpolator, "encode", watched)
    task = task_of("transport", tmp_path / "w")
    assert not seen, "a stage that is done needs no means"
    for _ in range(2):
        task.draw(0, 0)
        with torch.no_grad():
            task.validate()
    assert seen == [precision == torch.bfloat16] * 2


@pytest.mark.parametrize(
    ("stage", "moving"),
    [
        ("default", {"tau_1", "tau_2", "denoiser"}),
        ("transport", {"transport"}),
        ("films", {"tau_1", "mix_down", "mix_up"}),
    ],
)
def test_each_training_moves_its_own_networks_alone(
    stage: str, moving: set[str], tmp_path: Path
) -> None:
    task = task_of(stage, tmp_path / "w.safetensors")
    learning = [k for k, p in task.objective.named_parameters() if p.requires_grad]
    networks = {"tau_1", "tau_2", "denoiser", "transport", "mix_down", "mix_up"}
    assert {name for key in learning for name in key.split(".")} & networks == moving


@pytest.mark.parametrize("stage", ON_TUPLES)
def test_the_times_of_a_batch_are_spread_evenly(stage: str, tmp_path: Path) -> None:
    batch = task_of(stage, tmp_path / "w").draw(3, 0)
    assert isinstance(batch, TupleBatch)
    # One in each eighth.
    assert (batch.uniform * 8).long().tolist() == list(range(8))


def test_the_paper_learns_from_targets_in_the_middle_of_their_gap(tmp_path: Path) -> None:
    train = tuples()
    distance = train.distance.clone()
    distance[::3, 0] *= 0.5
    train = dataclasses.replace(train, distance=distance)
    draw = task_of("paper", tmp_path / "w", train=train).draw
    for step in range(4):
        drawn = draw(step, 0)
        assert isinstance(drawn, TupleBatch)
        assert not drawn.neighbours.distance[:, :2].sum(1).any()


@pytest.mark.parametrize("name", LEARNED)
def test_every_size_survives_the_file(tmp_path: Path, name: str) -> None:
    sizes = {"semantic": 16} if name == "diffusion-autoencoder" else {}
    model = new_baseline(name, channels=2, widths=(8, 8), embedding=24, **sizes)
    perturb(model, 3)
    save_baseline(model, tmp_path / "w.safetensors", {})
    loaded = load_baseline(tmp_path / "w.safetensors", name)
    assert loaded.config == model.config
    for key, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value.half().float(), rtol=0, atol=0)


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(UsageError, match="regression, diffusion-autoencoder"):
        new_baseline("magic")


@torch.no_grad()
def test_errors_of_the_regression_count_in_units_of_the_gate(tmp_path: Path) -> None:
    task = task_of("regression", tmp_path / "w")  # untrained: a straight line
    none = torch.zeros(1, 2, CHANNELS, 8, 8)
    seen = Neighbours(none, torch.tensor([[-8.0, 8.0, 0.0, 0.0]]), none, none)
    truth = torch.ones(1, CHANNELS, 8, 8)
    loss = task.objective(TupleBatch(truth, seen, truth, torch.zeros(1)))["loss"]
    assert float(loss) == pytest.approx(1 + 25 / 64, rel=1e-5)


@torch.no_grad()
def test_the_diffusion_autoencoder_is_asked_for_the_noise_of_its_batch(tmp_path: Path) -> None:
    task = task_of("diffusion-autoencoder", tmp_path / "w")
    batch = task.draw(0, 0)
    assert isinstance(batch, TupleBatch)
    # Untrained it predicts none at all.
    wanted = float(batch.noise.square().mean())
    assert float(task.objective(batch)["loss"]) == pytest.approx(wanted, rel=1e-5)
    objective = task.objective
    assert isinstance(objective, DiffusionAutoencoderObjective)
    objective.baseline.noise = lambda x, t, code: batch.noise  # type: ignore[method-assign]
    assert float(objective(batch)["loss"]) == 0
