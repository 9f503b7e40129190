"""The loop with an objective of a few numbers: resuming, averaging, the learning rate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from calid.errors import UsageError, WeightsError
from calid.training.loop import (
    FitConfig,
    MovingAverage,
    Task,
    _Log,
    fit,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
)

CPU = torch.device("cpu")
CONFIG = FitConfig(steps=10, rate=0.05, warmup=2, save_every=3, validate_every=4)


class PowerCutError(Exception):
    pass


class Line(nn.Module):
    """Fit a line to noisy points; one parameter is frozen."""

    def __init__(self, width: int = 3, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.slope = nn.Parameter(torch.randn(width, generator=generator))
        self.offset = nn.Parameter(torch.zeros(()))
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        error = batch @ self.slope * self.scale + self.offset - batch.sum(1) - 0.5
        return {"loss": error.square().mean(), "bias": error.mean().detach()}


class LineRun:
    """A task on `Line` that notes what it is asked for, and can be cut off."""

    def __init__(self, seed: int = 0, width: int = 3, stop: int | None = None) -> None:
        self.line, self.stop = Line(width, seed), stop
        self.exported: list[dict[str, float]] = []
        self.validated: list[Tensor] = []

    def batch(self, step: int, rank: int) -> Tensor:
        if step == self.stop:
            raise PowerCutError
        generator = torch.Generator().manual_seed(1000 * rank + step)
        return torch.randn(16, len(self.line.slope), generator=generator)

    def validate(self) -> Mapping[str, float]:
        assert not torch.is_grad_enabled()
        self.validated.append(self.line.slope.detach().clone())
        return {"first": float(self.line.slope[0])}

    def export(self, figures: Mapping[str, float]) -> None:
        self.exported.append(dict(figures))

    def fit(self, folder: Path, resume: bool, config: FitConfig = CONFIG) -> None:
        task = Task(self.line, self.batch, self.validate, self.export)
        fit(task, folder, config, CPU, resume)


def log_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    clock = {"seconds", "steps_per_second", "left"}  # these differ from run to run
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def assert_same_state(one: Path, other: Path) -> None:
    first, second = (load_file(p / "checkpoint.safetensors") for p in (one, other))
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0, atol=0)


@pytest.mark.parametrize("stop", [3, 5, 8, 9])
def test_a_run_that_was_cut_off_and_resumed_is_the_uninterrupted_run(
    tmp_path: Path, stop: int
) -> None:
    whole, cut, rest = LineRun(), LineRun(stop=stop), LineRun(seed=7)
    whole.fit(tmp_path / "whole", resume=False)
    with pytest.raises(PowerCutError):
        cut.fit(tmp_path / "cut", resume=False)
    assert log_of(tmp_path / "cut") != log_of(tmp_path / "whole")
    rest.fit(tmp_path / "cut", resume=True)
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    assert_same_state(tmp_path / "whole", tmp_path / "cut")
    for a, b in zip(whole.line.parameters(), rest.line.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert whole.exported[-1] == rest.exported[-1]


@pytest.mark.parametrize("step", [4, 8, 10])
def test_a_run_that_was_cut_off_within_a_validation_does_it_again(
    tmp_path: Path, step: int
) -> None:
    whole, cut, rest = LineRun(), LineRun(), LineRun(seed=7)
    config = FitConfig(steps=10, rate=0.05, warmup=2, save_every=2, validate_every=4)
    whole.fit(tmp_path / "whole", resume=False, config=config)

    def power_cut(figures: Mapping[str, float]) -> None:
        if figures["step"] == step:
            raise PowerCutError

    task = Task(cut.line, cut.batch, cut.validate, power_cut)
    with pytest.raises(PowerCutError):
        fit(task, tmp_path / "cut", config, CPU, resume=False)
    rest.fit(tmp_path / "cut", resume=True, config=config)
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    assert rest.exported[-1] == whole.exported[-1]


def test_resuming_without_a_checkpoint_starts_at_the_beginning(tmp_path: Path) -> None:
    LineRun().fit(tmp_path / "a", resume=False)
    with pytest.raises(PowerCutError):
        LineRun(stop=2).fit(tmp_path / "b", resume=False)  # before the first checkpoint
    LineRun().fit(tmp_path / "b", resume=True)
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


def test_without_resume_an_old_checkpoint_is_ignored(tmp_path: Path) -> None:
    LineRun(seed=5).fit(tmp_path / "a", resume=False)
    LineRun().fit(tmp_path / "a", resume=False)
    LineRun().fit(tmp_path / "b", resume=False)
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")
    assert_same_state(tmp_path / "a", tmp_path / "b")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    LineRun().fit(tmp_path, resume=False)
    before = log_of(tmp_path)
    again = LineRun(seed=3)
    again.fit(tmp_path, resume=True)
    assert log_of(tmp_path) == before
    assert again.exported == []


def test_a_half_written_last_line_of_the_log_does_not_prevent_resuming(tmp_path: Path) -> None:
    with pytest.raises(PowerCutError):
        LineRun(stop=5).fit(tmp_path, resume=False)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    LineRun().fit(tmp_path, resume=True)
    assert log_of(tmp_path)[-1]["step"] == 10


def test_every_step_is_logged_and_validation_comes_when_it_is_due(tmp_path: Path) -> None:
    task = LineRun()
    task.fit(tmp_path, resume=False)
    log = log_of(tmp_path)
    assert [line["step"] for line in log if "loss" in line] == list(range(1, 11))
    assert [line["step"] for line in log if "validation" in line] == [4, 8, 10]
    assert [figures["step"] for figures in task.exported] == [4, 8, 10]
    assert set(log[0]) == {"step", "loss", "bias", "gradient"}
    assert all(line["gradient"] > 0 for line in log if "loss" in line)


@pytest.mark.parametrize("start", [0, 1])
def test_the_second_process_leaves_the_log_that_the_first_is_writing(
    tmp_path: Path, start: int
) -> None:
    path = tmp_path / "log.jsonl"
    with _Log(path, start=0, rank=0) as first:
        first.write({"step": 1})
        before, inode = path.read_text(), path.stat().st_ino
        with _Log(path, start=start, rank=1) as second:
            second.write({"step": 99})
            assert path.read_text() == before
            assert path.stat().st_ino == inode, "replaced: the first writes where none looks"
        first.write({"step": 2})
    assert [line["step"] for line in log_of(tmp_path)] == [1, 2]


def test_networks_train_and_are_validated_in_the_precision_of_the_device(
    tmp_path: Path, precision: torch.dtype
) -> None:
    seen: list[bool] = []

    class Watched(Line):
        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(batch)

    def validate() -> Mapping[str, float]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return {}

    run = LineRun()
    run.line, run.validate = Watched(), validate  # type: ignore[method-assign]
    run.fit(tmp_path, resume=False, config=FitConfig(steps=1))
    assert seen == [precision == torch.bfloat16] * 2


def test_training_minimises_the_loss_and_leaves_frozen_parameters_alone(tmp_path: Path) -> None:
    task = LineRun()
    config = FitConfig(steps=120, rate=0.1, warmup=5, save_every=1000, validate_every=1000)
    task.fit(tmp_path, resume=False, config=config)
    log = log_of(tmp_path)
    assert log[-2]["loss"] < 0.02 < 0.5 < log[0]["loss"]
    torch.testing.assert_close(task.line.slope.detach(), torch.ones(3), rtol=0, atol=0.1)
    assert float(task.line.scale) == 1
    assert "parameter/scale" not in load_file(tmp_path / "checkpoint.safetensors")


def test_validation_sees_the_averaged_weights(tmp_path: Path) -> None:
    task = LineRun()
    task.fit(tmp_path, resume=False)
    state = load_file(tmp_path / "checkpoint.safetensors")
    torch.testing.assert_close(task.validated[-1], state["average/slope"], rtol=0, atol=0)
    torch.testing.assert_close(task.line.slope.detach(), state["parameter/slope"], rtol=0, atol=0)
    assert not torch.equal(state["average/slope"], state["parameter/slope"])


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    LineRun(width=3).fit(tmp_path, resume=False)
    with pytest.raises(WeightsError, match="network of another shape"):
        LineRun(width=4).fit(tmp_path, resume=True)


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, size: int) -> None:
    LineRun().fit(tmp_path, resume=False)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsError, match=r"checkpoint\.safetensors: The checkpoint cannot be"):
        LineRun().fit(tmp_path, resume=True)


def test_a_checkpoint_holds_the_optimisers_moments(tmp_path: Path) -> None:
    line, other = Line(), Line(seed=4)
    optimizers = [torch.optim.AdamW(list(m.parameters())[:2], fused=True) for m in (line, other)]
    averages = [MovingAverage(m, 0.9) for m in (line, other)]
    for _ in range(3):
        line(torch.eye(4, 3))["loss"].backward()
        optimizers[0].step()
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, line, averages[0], optimizers[0], 3)
    assert load_checkpoint(path, other, averages[1], optimizers[1]) == 3
    for a, b in ((line.slope, other.slope), (line.offset, other.offset)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        state, loaded = optimizers[0].state[a], optimizers[1].state[b]
        assert state.keys() == loaded.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for key, value in state.items():
            torch.testing.assert_close(value, loaded[key], rtol=0, atol=0)
        assert float(loaded["step"]) == 3


def test_restored_moments_lie_in_memory_as_their_parameters_do(tmp_path: Path) -> None:
    # Fused AdamW pairs numbers by their place in memory, whatever the strides say.
    nets = [nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last) for _ in range(2)]
    optimizers = [torch.optim.AdamW(net.parameters(), lr=0.1, fused=True) for net in nets]
    averages = [MovingAverage(net, 0.9) for net in nets]

    def step(k: int) -> None:
        nets[k](torch.arange(75.0).view(1, 3, 5, 5) / 75)[0, :, 1].square().sum().backward()
        optimizers[k].step()
        optimizers[k].zero_grad()

    for _ in range(3):
        step(0)
    save_checkpoint(tmp_path / "c", nets[0], averages[0], optimizers[0], 3)
    load_checkpoint(tmp_path / "c", nets[1], averages[1], optimizers[1])
    moment = optimizers[1].state[nets[1].weight]["exp_avg"]
    assert moment.stride() == nets[1].weight.stride() != moment.contiguous().stride()
    for k in (0, 1):
        step(k)
    torch.testing.assert_close(nets[0].weight, nets[1].weight, rtol=0, atol=0)


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    config = FitConfig(steps=1000, rate=2e-3, warmup=100, cooldown=0.4)
    rates = [learning_rate(step, config) for step in range(1001)]
    assert rates[0] == pytest.approx(2e-5)
    assert rates[49] == pytest.approx(1e-3)
    assert all(rate == 2e-3 for rate in rates[99:601])
    assert rates[800] == pytest.approx(1e-3)
    assert rates[999] == pytest.approx(2e-3 / 400)
    assert rates[1000] == 0
    rise, fall = rates[:100], rates[600:]
    assert rise == sorted(rise)
    assert fall == sorted(fall, reverse=True)


def test_the_average_follows_at_its_decay_and_faster_at_first() -> None:
    line = Line()
    average = MovingAverage(line, 0.9)
    start = line.slope.detach().clone()
    with torch.no_grad():
        line.slope += 1
    average.update(line, 0)  # (1 + 0) / (10 + 0) of the old survives
    torch.testing.assert_close(average.shadow["slope"], start + 0.9)
    average.update(line, 10_000)
    torch.testing.assert_close(average.shadow["slope"], start + 1 - 0.1 * 0.9)


def test_averaged_weights_are_lent_and_given_back_even_after_an_error() -> None:
    line = Line()
    average = MovingAverage(line, 0.9)
    with torch.no_grad():
        line.slope += 1
    own, shadow = line.slope.detach().clone(), average.shadow["slope"].clone()
    parameter = line.slope
    with average.applied(line):
        torch.testing.assert_close(line.slope.detach(), shadow, rtol=0, atol=0)
        assert line.slope is parameter, "the optimiser must keep its hold on it"
    torch.testing.assert_close(line.slope.detach(), own, rtol=0, atol=0)
    with pytest.raises(PowerCutError), average.applied(line):
        raise PowerCutError
    torch.testing.assert_close(line.slope.detach(), own, rtol=0, atol=0)
    torch.testing.assert_close(average.shadow["slope"], shadow, rtol=0, atol=0)


def test_a_run_that_diverges_stops_before_it_spoils_what_was_saved(tmp_path):
    run = LineRun()
    batch = run.batch
    run.batch = lambda step, rank: batch(step, rank) / (0.0 if step == 4 else 1.0)  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="gradient of step 5 is not finite") as caught:
        run.fit(tmp_path, resume=False)
    assert caught.value.subject == str(tmp_path)
    saved = load_file(tmp_path / "checkpoint.safetensors")
    assert all(t.isfinite().all() for t in saved.values())
    assert len(log_of(tmp_path)) == 5  # four steps and the validation of the fourth
