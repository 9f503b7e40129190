"""Recipes that train within a second; run as a program, `calid` with them.

As a program it also leaves what every process trained: ``OUT/FOLDER-RANK.pt``.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from calid.baselines.learned import DiffusionAutoencoderConfig, RegressionConfig
from calid.cli.main import main
from calid.models.interpolator import InterpolatorConfig
from calid.training import loop, recipes
from calid.training.parallel import process_rank
from calid.training.tuples import TupleConfig

WIDTHS = (8, 16)
BATCH = 4


def small() -> dict[str, Any]:
    """What stands in the place of the names of `calid.training.recipes`."""
    two = recipes.Recipe(steps=2, batch=BATCH, rate=1e-3, warmup=1, decay=0.9, phantoms=0, size=32)
    default = InterpolatorConfig(widths=WIDTHS, denoiser=(16, 8), embedding=16, mixing=(0.05, 0.1))
    paper = replace(default, registered=False, mixing=())
    regression = RegressionConfig(widths=WIDTHS, embedding=16)
    autoencoder = DiffusionAutoencoderConfig(widths=WIDTHS, semantic=8, embedding=16)
    tuples = TupleConfig(draws=2, size=32)
    return {
        "AUTOENCODER": two,
        "NETWORKS": {
            "default": recipes.Stage2Recipe(default, two, two, two, tuples),
            "paper": recipes.Stage2Recipe(paper, two, tuples=tuples),
            "regression": recipes.Stage2Recipe(regression, two, tuples=tuples),
            "diffusion-autoencoder": recipes.Stage2Recipe(autoencoder, two, tuples=tuples),
        },
    }


def watched(task: loop.Task, folder: Path, config: loop.FitConfig, *rest: Any) -> None:
    """`calid.training.loop._fit`; afterwards this process writes down what it has."""
    fit(task, folder, config, *rest)
    found = {
        "state": dict(task.objective.state_dict()),
        "examples": task.examples,
        "config": asdict(config),
    }
    torch.save(found, f"{folder}-{process_rank()}.pt")


if __name__ == "__main__":
    for name, recipe in small().items():
        setattr(recipes, name, recipe)
    fit, loop._fit = loop._fit, watched
    main(sys.argv[1:])
