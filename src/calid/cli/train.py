"""`calid train`: every network, on folders of stacks."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar

import tyro

from calid.cli.console import say
from calid.errors import CalidWarning, OutputError, UsageError

if TYPE_CHECKING:
    import torch

    from calid.data.bank import TrainingFilm
    from calid.training.loop import FitConfig, Task
    from calid.training.recipes import Recipe
    from calid.training.tuples import TupleConfig, Tuples

__all__ = [
    "FORMER",
    "TrainAutoencoder",
    "TrainDefault",
    "TrainDiffusionAutoencoder",
    "TrainPaper",
    "TrainRegression",
    "TrainSegmentation",
]

FORMER = {
    "interpolator": "calid train default, or calid train paper",
    "temporal": "calid train default, which needs no training of its own for films",
    "baseline": "calid train regression, or calid train diffusion-autoencoder",
}
"""Commands of earlier versions, and what to use in their place."""

CHECKED = 10
"""Most held-out stacks that new weights are compared on."""


@dataclass(frozen=True, kw_only=True)
class _Training:
    """Options of all trainings."""

    data: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Folder of NIfTI stacks to train on, searched recursively. Repeat for more folders."""
    out: Path
    """Folder for checkpoints, logs, weights and the caches of the data."""
    validation: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Folders of held-out stacks. Without any, a tenth of the subjects is held out."""
    resume: bool = False
    """Go on from the last checkpoint in OUT."""
    save_every: int = 250
    """Steps between checkpoints."""
    validate_every: int = 500
    """Steps between validations, each of which also writes the weights."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads, and processes that make synthetic hearts.
    0 leaves threads to torch and makes hearts on all CPUs."""

    @property
    def workers(self) -> int:
        """Processes that make synthetic hearts."""
        from calid.inference.machine import available_cpus

        return self.threads or available_cpus()

    def begin(self, folder: Path, seed: int) -> torch.device:
        """Set seed and threads, and return the device to train on.

        ``folder`` is for checkpoints, and may not hold those of another training.
        """
        import torch

        from calid.io.atomic import check_folder
        from calid.runtime import choose_device
        from calid.training.parallel import own_device

        if not self.resume and (folder / "checkpoint.safetensors").exists():
            # Killed before its own first checkpoint, a new training would resume as the old one.
            raise UsageError(
                folder,
                "It holds the checkpoint of an earlier training.",
                "Go on with --resume, or choose another folder.",
            )
        check_folder(self.out)
        torch.manual_seed(seed)
        torch.set_num_threads(self.threads or torch.get_num_threads())
        return own_device(choose_device(self.device))

    def fit(self, task: Task, config: FitConfig, folder: Path, device: torch.device) -> None:
        """Train, saving and validating as often as the options say."""
        from calid.training.loop import fit

        config = replace(config, save_every=self.save_every, validate_every=self.validate_every)
        remedy = "Free some space and go on with --resume."
        # The log is written line by line.
        with OutputError.of_system(folder, "The log of the training could not be written", remedy):
            fit(task, folder, config, device, self.resume)


@dataclass(frozen=True, kw_only=True)
class _RecipeTraining(_Training):
    """Options of the trainings that `calid.training.recipes` describes."""

    steps: int = 0
    """Optimiser steps; 0 for the recipe's. Of `default`: of each training but the last."""
    phantoms: int | None = None
    """Synthetic hearts beside the data. Without, the recipe's number."""

    def films(self, recipe: Recipe) -> tuple[list[TrainingFilm], list[TrainingFilm]]:
        """Training and held-out films in pixels of their own."""
        from calid.training.setup import gather_films

        phantoms = recipe.phantoms if self.phantoms is None else self.phantoms
        return gather_films(self.data, self.validation, phantoms, self.out, self.workers)

    def batch(self, recipe: Recipe) -> int:
        """Examples a step in this process, so that all together see the recipe's."""
        from calid.training.parallel import share_of_process

        return share_of_process(recipe.batch)

    def follow(
        self, task: Task, recipe: Recipe, folder: Path, device: torch.device, steps: int
    ) -> None:
        """Train as the recipe says, but for ``steps`` steps unless that is 0."""
        from calid.training.loop import FitConfig

        config = FitConfig(steps or recipe.steps, recipe.rate, recipe.warmup, decay=recipe.decay)
        self.fit(task, config, folder, device)


@dataclass(frozen=True, kw_only=True)
class TrainAutoencoder(_RecipeTraining):
    """Stage 1: learn the latent space from single slices. No labels are needed."""

    def run(self) -> None:
        """Train and leave OUT/autoencoder.safetensors."""
        from calid.models.autoencoder import Autoencoder, AutoencoderConfig
        from calid.training.autoencoder import autoencoder_task
        from calid.training.recipes import AUTOENCODER as RECIPE

        device = self.begin(self.out, RECIPE.seed)
        train, held_out = self.films(RECIPE)
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
        self.follow(task, RECIPE, self.out, device, self.steps)


@dataclass(frozen=True, kw_only=True)
class _TupleTraining(_RecipeTraining):
    """Options of the trainings of stage 2, which learn from tuples of latents."""

    network: ClassVar[str]
    """Name in `calid.training.recipes.NETWORKS`."""

    autoencoder: Path | None = None
    """Weights of stage 1. Without, those of the package."""
    draws: int = 0
    """Passes over the data when tuples are made; 0 for the recipe's."""

    def run(self) -> None:
        """Leave OUT/NAME.safetensors."""
        self.learn()

    def learn(self) -> list[TrainingFilm]:
        """Train the network and then what builds on it, if any; the held-out films."""
        from calid.baselines.learned import Baseline, new_baseline
        from calid.models.interpolator import InterpolatorConfig, LatentInterpolator
        from calid.models.store import load_state, load_tensors
        from calid.training.interpolator import film_task, interpolator_task, transport_task
        from calid.training.parallel import process_group
        from calid.training.recipes import NETWORKS

        name = self.network
        recipe, weights = NETWORKS[name], self.out / f"{name}.safetensors"
        first, second, third = recipe.training, recipe.transport, recipe.films
        folder = self.out / ("posterior" if isinstance(recipe.config, InterpolatorConfig) else name)
        device = self.begin(folder, first.seed)
        with process_group(device):
            cache = _Cache(self, first, recipe.tuples, device)
            tuples = cache.tuples()
            config = replace(recipe.config, channels=tuples[0].channels)
            model: LatentInterpolator | Baseline
            if isinstance(config, InterpolatorConfig):
                model = LatentInterpolator(config)
            else:
                model = new_baseline(name, **asdict(config))
            model.to(device)
            task = interpolator_task(model, *tuples, weights, self.batch(first), first.seed, device)
            self.follow(task, first, folder, device, self.steps)
            if not isinstance(model, LatentInterpolator):
                return cache.held_out
            if second is not None:
                # What follows starts from the averaged weights, not from those of the last step.
                load_state(model, load_tensors(weights, "interpolator")[0], weights)
                batch, seed = self.batch(second), second.seed
                task = transport_task(model.eval(), *tuples, weights, batch, seed, device)
                steps = self.later_steps()[0] or self.steps
                self.follow(task, second, self.out / "transport", device, steps)
            if third is not None:
                del tuples, task
                load_state(model, load_tensors(weights, "interpolator")[0], weights)
                films, held_out = cache.films()
                if not films:
                    warnings.warn(
                        f"{weights}: too few films among the data to learn how frames are mixed. "
                        "With these weights every frame of a film is generated by itself.",
                        CalidWarning,
                        stacklevel=2,
                    )
                    return cache.held_out
                batch, seed = self.batch(third), third.seed
                task = film_task(model.eval(), films, held_out, weights, batch, seed, device)
                self.follow(task, third, self.out / "films", device, self.later_steps()[1])
        return cache.held_out

    def later_steps(self) -> tuple[int, int]:
        """Steps of the transport (0 for `steps`), and of the mixing (0 for the recipe's)."""
        return 0, 0


class _Cache:
    """Films, and the tuples made from them in OUT/tuples, which all trainings share.

    The first of several processes makes them.
    """

    def __init__(
        self, verb: _TupleTraining, recipe: Recipe, config: TupleConfig, device: torch.device
    ) -> None:
        import torch

        from calid.models.store import load_autoencoder
        from calid.runtime import choose_runtime
        from calid.training.parallel import first_process_first
        from calid.weights import digest, weights_path

        runtime = choose_runtime(device.type)
        weights = verb.autoencoder or weights_path("autoencoder")
        autoencoder = load_autoencoder(weights).to(device)

        def encode(images: torch.Tensor) -> torch.Tensor:
            with torch.no_grad(), runtime.autocast():
                last = images.to(device, memory_format=torch.channels_last)
                return autoencoder.encode(last).float()

        with first_process_first(device):
            self.train, self.held_out = verb.films(recipe)
        self.channels, self.encode = autoencoder.config.latent_channels, encode
        self.device, self.config = device, replace(config, draws=verb.draws or config.draws)
        self.given = encode, digest(weights), verb.out / "tuples", self.config

    def tuples(self) -> tuple[Tuples, Tuples]:
        """To train and to validate on."""
        from calid.training.parallel import first_process_first
        from calid.training.tuples import build_tuples, size_on_disk, validation_tuples

        size = size_on_disk(self.train, self.channels, self.config)
        say(f"Tuples take up to {size / 1e9:.1f} GB of disk.")
        with first_process_first(self.device):
            seen = build_tuples(self.train, *self.given, _Draws(self.config.draws))
        return seen, validation_tuples(self.held_out, self.encode, self.config.size)

    def films(self) -> tuple[list[Tuples], list[Tuples]]:
        """Whole films; a tenth of the subjects is held out where no held-out stack is a film."""
        from calid.data.bank import split_subjects
        from calid.training.parallel import first_process_first
        from calid.training.tuples import build_films, film_tuples, is_film

        train, held_out = ([f for f in x if is_film(f)] for x in (self.train, self.held_out))
        if not held_out:
            apart = split_subjects(film.subject for film in train)
            held_out = [film for film in train if film.subject in apart]
            train = [film for film in train if film.subject not in apart]
        if not train or not held_out:
            return [], []
        with first_process_first(self.device):
            seen = build_films(train, *self.given, _Draws(self.config.draws))
        return seen, [film_tuples(film, self.encode, self.config.size) for film in held_out]


class _Draws:
    """Says how many draws of tuples are done, and how long the rest will take."""

    def __init__(self, draws: int) -> None:
        self.draws, self.made, self.seconds = draws, 0, 0.0
        self.last = time.monotonic()

    def __call__(self, done: int, made: bool) -> None:
        before, self.last = self.last, time.monotonic()
        if not made:
            say(f"draw {done} of {self.draws} is there")
            return
        self.made += 1
        self.seconds += self.last - before
        left = self.seconds / self.made * (self.draws - done)
        say(f"draw {done} of {self.draws}, about {left / 60:.0f} min left")


@dataclass(frozen=True, kw_only=True)
class TrainDefault(_TupleTraining):
    """Stage 2: how one slice becomes the next, the `default` preset. No labels are needed."""

    network = "default"
    transport_steps: int = 0
    """Optimiser steps of the transport; 0 for as many as --steps."""
    film_steps: int = 0
    """Optimiser steps of the mixing of frames, which comes last; 0 for the recipe's."""

    def later_steps(self) -> tuple[int, int]:
        """As the options say."""
        return self.transport_steps, self.film_steps

    def run(self) -> None:
        """Train, then compare with the weights of the package on held-out stacks."""
        from calid.training.parallel import process_rank

        held_out = self.learn()
        if process_rank() == 0:
            for line in self.checked(held_out):
                say(line)

    def checked(self, held_out: Sequence[TrainingFilm]) -> list[str]:
        """How both weights do on slices of held-out stacks that are hidden; a line each."""
        from calid.data.bank import window_units
        from calid.errors import CalidError
        from calid.evaluation.methods import averaged
        from calid.evaluation.selfcheck import OURS, SelfCheck, self_check
        from calid.inference.model import Model, load_model
        from calid.inference.options import Answer
        from calid.models.layers import channels_last
        from calid.models.store import load_autoencoder, load_interpolator
        from calid.stack import SliceStack
        from calid.weights import weights_path

        first = {film.subject: film for film in reversed(held_out)}
        stacks = []
        for film in list(first.values())[:CHECKED]:
            gap = (film.positions[-1] - film.positions[0]) / max(len(film.positions) - 1, 1)
            images = window_units(film.frames[:1]).numpy()
            stacks.append(SliceStack.of_array(images, (gap, *film.spacing)))
        found: dict[str, list[SelfCheck]] = {}
        released = load_model(device=self.device)
        trained = Model(
            channels_last(load_autoencoder(self.autoencoder or weights_path("autoencoder"))),
            channels_last(load_interpolator(self.out / "default.safetensors", "default")),
            "default",
            runtime=released.runtime,
        )
        trained.autoencoder.to(released.device)
        trained.interpolator.to(released.device)
        for name, model in (("before", released), ("after", trained)):
            for stack in stacks:
                with suppress(CalidError):  # too small or too plain, before and after
                    check = self_check(stack, averaged(model, Answer()))
                    found.setdefault(name, []).append(check)
        if not found:
            return ["No held-out stack has slices to hide: the new weights are not checked."]
        before, after = found["before"], found["after"]
        rows = [("linear", "linear", before), ("before", OURS, before), ("after", OURS, after)]
        lines = [f"hidden slices of {len(after)} held-out stacks:    PSNR     SSIM"]
        for label, answer, checks in rows:
            psnr, ssim = (fmean(c.mean(answer, m) for c in checks) for m in ("psnr", "ssim"))
            lines.append(f"{label:<38}{psnr:>8.2f}{ssim:>9.3f}")
        return lines


@dataclass(frozen=True, kw_only=True)
class TrainPaper(_TupleTraining):
    """Stage 2 as in the paper: the `paper` preset. No labels are needed."""

    network = "paper"


@dataclass(frozen=True, kw_only=True)
class TrainRegression(_TupleTraining):
    """A learned baseline of the benchmark, on the tuples of stage 2: a U-Net, no diffusion."""

    network = "regression"


@dataclass(frozen=True, kw_only=True)
class TrainDiffusionAutoencoder(_TupleTraining):
    """A learned baseline of the benchmark, on the tuples of stage 2: interpolated codes."""

    network = "diffusion-autoencoder"


@dataclass(frozen=True, kw_only=True)
class TrainSegmentation(_Training):
    """The segmentation network; every stack X.nii.gz needs its X_label.nii.gz."""

    phantoms: int = 0
    """Number of synthetic hearts to add to the training data."""
    steps: int = 20_000
    """Optimiser steps in all."""
    rate: float = 1e-3
    """Peak learning rate."""
    size: int = 128
    """Side of the training crop in pixels of 1.5 mm, a multiple of 16."""
    seed: int = 0
    """Seed of data and initial weights."""
    batch: int = 16
    """Slices a step."""
    start_from: Path | None = None
    """Weights to fine-tune. Default: train from scratch."""
    label_map: str | None = None
    """Which values the labels have, if they are others:
    LV=1,MYO=2,RV=3 for M&Ms and UK Biobank."""

    def run(self) -> None:
        """Train and leave OUT/segmentation.safetensors."""
        from calid.io.labels import parse_label_map
        from calid.segmentation.segment import (
            SegmentationConfig,
            SegmentationNetwork,
            load_segmentation,
        )
        from calid.training.loop import FitConfig
        from calid.training.segmentation import segmentation_task
        from calid.training.setup import gather_labelled

        device = self.begin(self.out, self.seed)
        known = parse_label_map(self.label_map)
        train, held_out = gather_labelled(
            self.data, self.validation, self.phantoms, known, self.workers
        )
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
        config = FitConfig(self.steps, self.rate, warmup=min(200, self.steps // 20))
        self.fit(task, config, self.out, device)
