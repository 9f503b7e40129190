"""`calid train`: every network, on folders of stacks."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from calid.errors import CalidWarning, OutputError, UsageError

if TYPE_CHECKING:
    import torch

    from calid.data.bank import Film
    from calid.models.interpolator import Interpolator, PaperInterpolator
    from calid.training.interpolator import TupleObjective
    from calid.training.loop import FitConfig, Task
    from calid.training.recipes import Recipe

__all__ = [
    "TrainAutoencoder",
    "TrainBaseline",
    "TrainDefault",
    "TrainInterpolator",
    "TrainPaper",
    "TrainSegmentation",
    "TrainTemporal",
]


@dataclass(frozen=True, kw_only=True)
class _Training:
    """Options that all networks share."""

    data: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Folder of NIfTI stacks to train on, searched recursively. Repeat for more folders."""
    out: Path
    """Folder for checkpoint, log, weights and the cache of the data."""
    validation: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Folders of held-out stacks. Without any, a tenth of the subjects is held out."""
    phantoms: int = 0
    """Number of synthetic hearts to add to the training data."""
    steps: int = 20_000
    """Optimiser steps in all."""
    rate: float = 1e-3
    """Peak learning rate."""
    size: int = 128
    """Side of the training crop in pixels of 1.5 mm, a multiple of 16."""
    seed: int = 0
    """Seed of data, noise and initial weights."""
    resume: bool = False
    """Go on from the last checkpoint in OUT."""
    save_every: int = 250
    """Steps between checkpoints."""
    validate_every: int = 500
    """Steps between validations, each of which also writes the weights."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to torch."""

    def begin(self) -> torch.device:
        """Seed and threads; the device to train on."""
        _refuse_other_training(self.out, self.resume)
        return _begin(self.out, self.seed, self.threads, self.device)

    def fit(self, task: Task, device: torch.device) -> None:
        """Train for the given steps."""
        from calid.training.loop import FitConfig

        config = FitConfig(
            steps=self.steps,
            rate=self.rate,
            warmup=min(200, self.steps // 20),
            save_every=self.save_every,
            validate_every=self.validate_every,
        )
        _fit(task, self.out, config, device, self.resume)


def _refuse_other_training(folder: Path, resume: bool) -> None:
    if not resume and (folder / "checkpoint.safetensors").exists():
        # Killed before its own first checkpoint, a new training would resume as the old one.
        raise UsageError(
            folder,
            "It holds the checkpoint of an earlier training.",
            "Go on with --resume, or choose another folder.",
        )


def _begin(out: Path, seed: int, threads: int, device: str) -> torch.device:
    import torch

    from calid.inference.runtime import choose_device
    from calid.io.atomic import check_folder
    from calid.training.parallel import own_device

    check_folder(out)
    torch.manual_seed(seed)
    torch.set_num_threads(threads or torch.get_num_threads())
    return own_device(choose_device(device))


def _fit(task: Task, folder: Path, config: FitConfig, device: torch.device, resume: bool) -> None:
    from calid.training.loop import fit

    try:
        fit(task, folder, config, device, resume)
    except OSError as error:  # the log is written line by line
        raise OutputError(
            folder,
            f"The log of the training could not be written: {error.strerror or error}.",
            "Free some space and go on with --resume.",
        ) from error


@dataclass(frozen=True, kw_only=True)
class _RecipeTraining:
    """Options of the trainings that `calid.training.recipes` describes."""

    data: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Folder of NIfTI stacks to train on, searched recursively. Repeat for more folders."""
    out: Path
    """Folder for checkpoints, logs, weights and the caches of the data."""
    validation: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Folders of held-out stacks. Without any, a tenth of the subjects is held out."""
    steps: int = 0
    """Optimiser steps of each training; 0 for the recipe's."""
    resume: bool = False
    """Go on from the last checkpoint in OUT."""
    save_every: int = 250
    """Steps between checkpoints."""
    validate_every: int = 500
    """Steps between validations, each of which also writes the weights."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to torch."""

    def begin(self, seed: int) -> torch.device:
        """Seed and threads; the device to train on."""
        return _begin(self.out, seed, self.threads, self.device)

    def films(self, phantoms: int) -> tuple[list[Film], list[Film]]:
        """Training and held-out films in pixels of their own."""
        from calid.training.setup import gather_films

        return gather_films(self.data, self.validation, phantoms, self.out, own_pixels=True)

    def batch(self, recipe: Recipe) -> int:
        """Examples a step in this process, so that all together see the recipe's."""
        from calid.training.parallel import share_of_process

        return share_of_process(recipe.batch)

    def fit(self, task: Task, recipe: Recipe, folder: Path, device: torch.device) -> None:
        """Train as the recipe says."""
        from calid.training.loop import FitConfig

        config = FitConfig(
            steps=self.steps or recipe.steps,
            rate=recipe.rate,
            warmup=recipe.warmup,
            decay=recipe.decay,
            save_every=self.save_every,
            validate_every=self.validate_every,
        )
        _fit(task, folder, config, device, self.resume)


@dataclass(frozen=True, kw_only=True)
class TrainAutoencoder(_RecipeTraining):
    """Stage 1: learn the latent space from single slices. No labels are needed."""

    def run(self) -> None:
        """Train and leave OUT/autoencoder.safetensors."""
        from calid.models.autoencoder import Autoencoder, AutoencoderConfig
        from calid.training.autoencoder import autoencoder_task
        from calid.training.recipes import AUTOENCODER as RECIPE

        _refuse_other_training(self.out, self.resume)
        device = self.begin(RECIPE.seed)
        train, held_out = self.films(RECIPE.phantoms)
        task = autoencoder_task(
            Autoencoder(AutoencoderConfig()).to(device),
            train,
            held_out,
            weights=self.out / "autoencoder.safetensors",
            size=RECIPE.size,
            batch=self.batch(RECIPE),
            seed=RECIPE.seed,
            device=device,
        )
        self.fit(task, RECIPE, self.out, device)


@dataclass(frozen=True, kw_only=True)
class _InterpolatorTraining(_RecipeTraining):
    """Stage 2 of a preset: tuples, then tau_1, tau_2 and the denoiser, then the transport."""

    autoencoder: Path
    """Weights of stage 1."""
    draws: int = 0
    """Passes over the data when tuples are made; 0 for the recipe's."""

    def train(self, preset: str) -> None:
        """Train and leave OUT/PRESET.safetensors."""
        import torch

        from calid.cli.console import say
        from calid.inference.runtime import choose_runtime
        from calid.models.latent_interpolator import LatentInterpolator
        from calid.models.store import fill, load_autoencoder, load_tensors
        from calid.training.latent_interpolator import interpolator_task, transport_task
        from calid.training.parallel import first_process_first
        from calid.training.recipes import INTERPOLATORS
        from calid.training.tuples import build_tuples, size_on_disk, validation_tuples
        from calid.weights import digest

        recipe = INTERPOLATORS[preset]
        folders = {"posterior": self.out / "posterior", "transport": self.out / "transport"}
        _refuse_other_training(folders["posterior"], self.resume)
        device = self.begin(recipe.posterior.seed)
        runtime = choose_runtime(device.type)
        autoencoder = load_autoencoder(self.autoencoder).to(device)

        def encode(images: torch.Tensor) -> torch.Tensor:
            with torch.no_grad(), runtime.autocast():
                last = images.to(device, memory_format=torch.channels_last)
                return autoencoder.encode(last).float()

        tuples = replace(recipe.tuples, **({"draws": self.draws} if self.draws else {}))
        channels, key = autoencoder.config.latent_channels, digest(self.autoencoder)
        with first_process_first(device):
            train, held_out = self.films(recipe.posterior.phantoms)
            say(f"Tuples take up to {size_on_disk(train, channels, tuples) / 1e9:.1f} GB of disk.")
            cache = self.out / "tuples"
            seen = build_tuples(train, encode, key, cache, tuples, _Draws(tuples.draws))
        checked = validation_tuples(held_out, encode, tuples.size)
        model = LatentInterpolator(replace(recipe.config, channels=channels)).to(device)
        weights = self.out / f"{preset}.safetensors"
        given = seen, checked, weights, self.batch(recipe.posterior), recipe.posterior.seed, device
        self.fit(interpolator_task(model, *given), recipe.posterior, folders["posterior"], device)
        if recipe.transport is not None:
            # The averaged weights, not those of the last step, are what the transport starts from.
            fill(model, load_tensors(weights, "interpolator")[0], weights)
            task = transport_task(model.eval(), *given)
            self.fit(task, recipe.transport, folders["transport"], device)


class _Draws:
    """Says how many draws of tuples are done, and how long the rest will take."""

    def __init__(self, draws: int) -> None:
        self.draws, self.started = draws, time.monotonic()

    def __call__(self, done: int) -> None:
        from calid.cli.console import say

        seconds = (time.monotonic() - self.started) / done * (self.draws - done)
        say(f"draw {done} of {self.draws}, about {seconds / 60:.0f} min left")


@dataclass(frozen=True, kw_only=True)
class TrainDefault(_InterpolatorTraining):
    """Stage 2: how one slice becomes the next, the `default` preset. No labels are needed."""

    def run(self) -> None:
        """Train and leave OUT/default.safetensors."""
        self.train("default")


@dataclass(frozen=True, kw_only=True)
class TrainPaper(_InterpolatorTraining):
    """Stage 2 as in the paper: the `paper` preset. No labels are needed."""

    def run(self) -> None:
        """Train and leave OUT/paper.safetensors."""
        self.train("paper")


@dataclass(frozen=True, kw_only=True)
class _HiddenSliceTraining(_Training):
    """Options of everything that learns to fill gaps, in the latent space of stage 1."""

    autoencoder: Path | None = None
    """Weights of stage 1. Without, those of the package."""
    stacks: int = 6
    """Stacks a step."""
    targets: int = 6
    """Hidden slices to reconstruct per stack and step."""

    def fit_objective(self, make: Callable[[], TupleObjective], name: str) -> None:
        """Train what ``make`` returns and leave OUT/NAME.safetensors."""
        from calid.models.store import check_latents, load_autoencoder
        from calid.training.interpolator import interpolator_task
        from calid.training.setup import gather_films
        from calid.weights import weights_path

        device = self.begin()
        objective = make().to(device)
        autoencoder = load_autoencoder(self.autoencoder or weights_path("autoencoder"))
        check_latents(autoencoder, objective.channels, name)
        train, held_out = gather_films(self.data, self.validation, self.phantoms, self.out)
        task = interpolator_task(
            objective,
            autoencoder.to(device),
            train,
            held_out,
            weights=self.out / f"{name}.safetensors",
            size=self.size,
            stacks=self.stacks,
            targets=self.targets,
            seed=self.seed,
            device=device,
        )
        self.fit(task, device)


@dataclass(frozen=True, kw_only=True)
class TrainInterpolator(_HiddenSliceTraining):
    """Stage 2: learn how one slice becomes the next, in the latent space of stage 1."""

    preset: Literal["default", "paper"] = "default"
    """Which model to train."""
    start_from: Path | None = None
    """Weights of this preset to begin with, to fine-tune them; without, from scratch.
    Their layers for films are left out."""

    def run(self) -> None:
        """Train and leave OUT/PRESET.safetensors."""
        from calid.models.store import load_interpolator, new_interpolator
        from calid.training.interpolator import preset_objective

        def make() -> TupleObjective:
            if self.start_from is None:
                return preset_objective(new_interpolator(self.preset))
            released = _of_single_frames(load_interpolator(self.start_from, self.preset))
            return preset_objective(released.train().requires_grad_(True))

        self.fit_objective(make, self.preset)


def _of_single_frames(
    model: Interpolator | PaperInterpolator,
) -> Interpolator | PaperInterpolator:
    """Weights to fine-tune on stacks; says so if they will know films no longer."""
    from calid.models.interpolator import Interpolator, without_temporal_layers

    if not isinstance(model, Interpolator) or not model.sees_films:
        return model
    warnings.warn(
        "The layers that mix over frames fit the layers that change now: they are left out. "
        "Train them again afterwards, with calid train temporal.",
        CalidWarning,
        stacklevel=2,
    )
    return without_temporal_layers(model)


@dataclass(frozen=True, kw_only=True)
class TrainTemporal(_Training):
    """Stage 3: learn to see all frames of a film at once; single frames are answered as before.

    Only layers that mix over frames are trained, between those of stage 2. Give cine stacks
    that hold one heartbeat each.
    """

    start_from: Path | None = None
    """Weights of stage 2, default preset. Without, those of the package."""
    autoencoder: Path | None = None
    """Weights of stage 1. Without, those of the package."""
    frames: int = 18
    """Most frames of the one film of a step."""
    targets: int = 2
    """Hidden slices to reconstruct per film and step."""
    phantom_frames: int = 12
    """Of each synthetic heart."""

    def run(self) -> None:
        """Train and leave OUT/default.safetensors."""
        from calid.models.interpolator import Interpolator, with_temporal_layers
        from calid.models.store import load_autoencoder, load_interpolator
        from calid.training.film import FilmObjective, film_task
        from calid.training.setup import gather_films
        from calid.weights import weights_path

        device = self.begin()
        train, held_out = gather_films(
            self.data, self.validation, self.phantoms, self.out, self.phantom_frames
        )
        single = load_interpolator(self.start_from or weights_path("default"), "default")
        assert isinstance(single, Interpolator)
        task = film_task(
            FilmObjective(with_temporal_layers(single)).to(device),
            load_autoencoder(self.autoencoder or weights_path("autoencoder")).to(device),
            train,
            held_out,
            weights=self.out / "default.safetensors",
            size=self.size,
            frames=self.frames,
            targets=self.targets,
            seed=self.seed,
            device=device,
        )
        self.fit(task, device)


@dataclass(frozen=True, kw_only=True)
class TrainBaseline(_HiddenSliceTraining):
    """A learned baseline of the benchmark, on the same tuples as stage 2."""

    method: Literal["regression", "diffusion-autoencoder"]
    """Which baseline to train."""
    morphology: bool = False
    """Give the diffusion autoencoder a code of label maps too,
    which the package's segmentation network draws."""

    def run(self) -> None:
        """Train and leave OUT/METHOD.safetensors."""
        from calid.baselines.diffusion_autoencoder import DiffusionAutoencoder
        from calid.baselines.learned import new_baseline
        from calid.segmentation.segment import load_segmenter
        from calid.training.baselines import baseline_objective

        if self.morphology and self.method != "diffusion-autoencoder":
            raise UsageError(
                "--morphology", f"{self.method} takes no label maps.", "Leave the option out."
            )

        def make() -> TupleObjective:
            model = new_baseline(self.method, **({"morphology": True} if self.morphology else {}))
            if isinstance(model, DiffusionAutoencoder) and self.morphology:
                model.label_with(load_segmenter(self.device).one_hot)
            return baseline_objective(model)

        self.fit_objective(make, self.method)


@dataclass(frozen=True, kw_only=True)
class TrainSegmentation(_Training):
    """The segmentation network; every stack X.nii.gz needs its X_label.nii.gz."""

    batch: int = 16
    """Slices a step."""
    start_from: Path | None = None
    """Weights to begin with, to fine-tune them; without, from scratch."""
    label_map: str | None = None
    """Which values the labels have, if they are others:
    LV=1,MYO=2,RV=3 for M&Ms and UK Biobank."""

    def run(self) -> None:
        """Train and leave OUT/segmentation.safetensors."""
        from calid.io.labels import parse_label_map
        from calid.segmentation.network import (
            SegmentationConfig,
            SegmentationNetwork,
            load_segmentation,
        )
        from calid.training.segmentation import segmentation_task
        from calid.training.setup import gather_labelled

        device = self.begin()
        known = parse_label_map(self.label_map)
        train, held_out = gather_labelled(self.data, self.validation, self.phantoms, known)
        if self.start_from is None:
            network = SegmentationNetwork(SegmentationConfig())
        else:
            network = load_segmentation(self.start_from).train().requires_grad_(True)
        task = segmentation_task(
            network.to(device),
            train,
            held_out,
            weights=self.out / "segmentation.safetensors",
            size=self.size,
            batch=self.batch,
            seed=self.seed,
            device=device,
        )
        self.fit(task, device)
