"""`calid train`: every network, on folders of stacks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from calid.errors import CalidWarning, OutputError, UsageError

if TYPE_CHECKING:
    import torch

    from calid.models.interpolator import Interpolator, PaperInterpolator
    from calid.training.interpolator import TupleObjective
    from calid.training.loop import Task

__all__ = [
    "TrainAutoencoder",
    "TrainBaseline",
    "TrainFinisher",
    "TrainInterpolator",
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
        import torch

        from calid.inference.runtime import choose_device
        from calid.io.atomic import check_folder
        from calid.training.parallel import own_device

        check_folder(self.out)
        if not self.resume and (self.out / "checkpoint.safetensors").exists():
            # Killed before its own first checkpoint, a new training would resume as the old one.
            raise UsageError(
                self.out,
                "It holds the checkpoint of an earlier training.",
                "Go on with --resume, or choose another folder.",
            )
        torch.manual_seed(self.seed)
        torch.set_num_threads(self.threads or torch.get_num_threads())
        return own_device(choose_device(self.device))

    def fit(self, task: Task, device: torch.device) -> None:
        """Train for the given steps."""
        from calid.training.loop import FitConfig, fit

        config = FitConfig(
            steps=self.steps,
            rate=self.rate,
            warmup=min(200, self.steps // 20),
            save_every=self.save_every,
            validate_every=self.validate_every,
        )
        try:
            fit(task, self.out, config, device, self.resume)
        except OSError as error:  # the log is written line by line
            raise OutputError(
                self.out,
                f"The log of the training could not be written: {error.strerror or error}.",
                "Free some space and go on with --resume.",
            ) from error


@dataclass(frozen=True, kw_only=True)
class TrainAutoencoder(_Training):
    """Stage 1: learn the latent space from single slices. No labels are needed."""

    batch: int = 8
    """Slices a step, even."""

    def run(self) -> None:
        """Train and leave OUT/autoencoder.safetensors."""
        from calid.models.autoencoder import Autoencoder, AutoencoderConfig
        from calid.training.autoencoder import autoencoder_task
        from calid.training.setup import gather_films

        device = self.begin()
        train, held_out = gather_films(self.data, self.validation, self.phantoms, self.out)
        task = autoencoder_task(
            Autoencoder(AutoencoderConfig()).to(device),
            train,
            held_out,
            weights=self.out / "autoencoder.safetensors",
            size=self.size,
            batch=self.batch,
            seed=self.seed,
            device=device,
        )
        self.fit(task, device)


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
        from calid.models.store import load_autoencoder
        from calid.training.interpolator import interpolator_task
        from calid.training.setup import gather_films
        from calid.weights import weights_path

        device = self.begin()
        train, held_out = gather_films(self.data, self.validation, self.phantoms, self.out)
        task = interpolator_task(
            make().to(device),
            load_autoencoder(self.autoencoder or weights_path("autoencoder")).to(device),
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
class TrainFinisher(_HiddenSliceTraining):
    """Stage 4: learn to move and weigh the registered pixels, and to correct the mean.

    No labels are needed: where walls are, the package's segmentation network says.
    """

    interpolator: Path | None = None
    """Weights of stage 2 or 3, default preset. Without, those of the package."""
    start_from: Path | None = None
    """Weights to begin with, to fine-tune them; without, from scratch."""

    def run(self) -> None:
        """Train and leave OUT/finisher.safetensors."""
        from calid.models.finisher import Finisher, FinisherConfig, load_finisher
        from calid.models.interpolator import Interpolator
        from calid.models.store import load_autoencoder, load_interpolator
        from calid.segmentation.segment import load_segmenter
        from calid.training.finisher import FinishObjective
        from calid.weights import weights_path

        def make() -> TupleObjective:
            if self.start_from is None:
                finisher = Finisher(FinisherConfig())
            else:
                finisher = load_finisher(self.start_from).train().requires_grad_(True)
            known = load_interpolator(self.interpolator or weights_path("default"), "default")
            assert isinstance(known, Interpolator)
            autoencoder = load_autoencoder(self.autoencoder or weights_path("autoencoder"))
            label = load_segmenter(self.device).one_hot
            return FinishObjective(finisher, known, autoencoder, label)

        self.fit_objective(make, "finisher")


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

    def run(self) -> None:
        """Train and leave OUT/segmentation.safetensors."""
        from calid.segmentation.network import (
            SegmentationConfig,
            SegmentationNetwork,
            load_segmentation,
        )
        from calid.training.segmentation import segmentation_task
        from calid.training.setup import gather_labelled

        device = self.begin()
        train, held_out = gather_labelled(self.data, self.validation, self.phantoms)
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
