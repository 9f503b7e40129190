"""What is to train in the tests of trainings: every network, tiny, on data made up here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

from calid.baselines.learned import LEARNED, new_baseline
from calid.data.augment import crop
from calid.data.bank import LabelledStack, TrainingFilm, window_units
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.interpolator import DEFAULT, PAPER, LatentInterpolator
from calid.models.motion import Frames
from calid.segmentation.segment import SegmentationConfig, SegmentationNetwork
from calid.training.autoencoder import autoencoder_task
from calid.training.interpolator import film_task, interpolator_task, transport_task
from calid.training.loop import Task
from calid.training.segmentation import segmentation_task
from calid.training.tuples import Tuples

CPU = torch.device("cpu")
SIZE, CHANNELS = 32, 2
SIZES = AutoencoderConfig(CHANNELS, (8, 16), (1, 1), (1, 1))
TINY = SegmentationConfig(widths=(8, 8, 16, 16), depth=(1, 1, 1, 1))
SMALL = {"channels": CHANNELS, "widths": (8, 16), "denoiser": (16, 8), "embedding": 16}
ON_TUPLES = ("default", "transport", "paper", *LEARNED)
STAGES = ("autoencoder", "segmentation", "films", *ON_TUPLES)


def film(name: str, seed: int, slices: int = 9) -> TrainingFilm:
    """A bright disc on a grey ground that drifts and shrinks along the stack."""
    rng = np.random.default_rng(seed)
    x, y, dx, dy = rng.uniform(16, 24, 2).tolist() + rng.uniform(-1, 1, 2).tolist()
    rows, columns = np.mgrid[:40, :40]
    k = np.arange(slices)[:, None, None]
    radius = 12 - k + np.arange(2)[:, None, None, None]
    distance = np.hypot(columns - x - dx * k, rows - y - dy * k)
    image = 0.2 + 0.7 / (1 + np.exp(distance - radius)) + 0.03 * rng.random((2, slices, 40, 40))
    return TrainingFilm(name, np.rint(170 * image).astype(np.uint8), 8.0 * np.arange(slices))


def labelled(name: str, seed: int) -> LabelledStack:
    """Nested discs: LV in a ring, RV beside it, at another place in every stack."""
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(18, 24, 2)
    rows, columns = np.mgrid[:44, :42]
    labels = np.zeros((4, 44, 42), np.uint8)
    for number, image in enumerate(labels):
        away = np.hypot(rows - y, columns - x)
        image[np.hypot(rows - y, columns - x - 12) < 8] = 1
        image[away < 11 - number] = 2
        image[away < 7 - number] = 3
    noise = np.random.default_rng(seed).normal(0, 0.02, labels.shape)
    images = (np.array([0.1, 0.9, 0.4, 1.0])[labels] + noise).clip(0).astype(np.float32)
    return LabelledStack(name, f"{name}_ED", images, labels)


LABELLED, HELD_OUT_LABELLED = [labelled("a", 0), labelled("b", 1)], [labelled("c", 2)]
TRAIN, HELD_OUT = [film("a", 0), film("b", 1), film("c", 2)], [film("d", 3)]


def shown(films: list[TrainingFilm]) -> torch.Tensor:
    """Centres of all slices of the first frames, ``(slices, 1, size, size)``."""
    images = [crop(window_units(f.frames[0]), SIZE, torch.eye(2, 3)) for f in films]
    return torch.cat(images)[:, None]


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


def model(stage: str, seed: int = 0) -> LatentInterpolator:
    torch.manual_seed(seed)
    return LatentInterpolator(dataclasses.replace(PAPER if stage == "paper" else DEFAULT, **SMALL))


def task_of(
    stage: str,
    weights: Path,
    seed: int = 0,
    train: Tuples | None = None,
    held_out: Tuples | None = None,
) -> Task:
    """A fresh task; ``seed`` is that of the initial weights, not of the data."""
    given = train or tuples(), held_out or tuples(12, 1), weights, 8, 0, CPU
    torch.manual_seed(seed)
    if stage == "autoencoder":
        network = Autoencoder(SIZES)
        return autoencoder_task(
            network, TRAIN, HELD_OUT, weights, SIZE, batch=4, seed=0, device=CPU
        )
    if stage == "segmentation":
        return segmentation_task(
            SegmentationNetwork(TINY), LABELLED, HELD_OUT_LABELLED, weights, SIZE, 4, 0, CPU
        )
    if stage in LEARNED:
        return interpolator_task(new_baseline(stage, channels=CHANNELS, widths=(8, 16)), *given)
    first, second = model(stage, seed), model(stage)
    # What a training leaves alone does not depend on the seed.
    if stage == "transport":
        second.transport = first.transport
        return transport_task(second, *given)
    if stage == "films":
        perturb(second, 0)  # before training nothing that is mixed comes out
        second.tau_1.mix_down, second.tau_1.mix_up = first.tau_1.mix_down, first.tau_1.mix_up
        films = [dataclasses.replace(x, frames=Frames(4)) for x in given[:2]]
        return film_task(second, films[:1], films[1:], *given[2:])
    first.transport = second.transport
    first.tau_1.mix_down, first.tau_1.mix_up = second.tau_1.mix_down, second.tau_1.mix_up
    return interpolator_task(first, *given)


def perturb(network: torch.nn.Module, seed: int) -> None:
    """Random numbers on all parameters, as if they had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def log_of(folder: Path) -> list[dict[str, object]]:
    """Lines of a log without what the clock says."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    clock = ("seconds", "left")
    return [
        {k: v for k, v in line.items() if k not in clock and not k.endswith("_per_second")}
        for line in lines
    ]
