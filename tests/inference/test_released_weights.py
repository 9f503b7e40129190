"""The released networks answer a synthetic heart as they did when they were released.

New weights have new answers: ``python tests/inference/test_released_weights.py`` writes them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from calid.data.intensity import IntensityWindow
from calid.data.phantom import HeartPhantom
from calid.inference.model import Preset, load_model
from calid.inference.options import Answer
from calid.runtime import Runtime

ANSWERS = Path(__file__).with_name("released_answers.json")
ASKED: dict[Preset, Answer] = {"default": Answer(), "paper": Answer(samples=1, steps=2)}
BLOCK = 4  # pixels


def answer(preset: Preset, precision: torch.dtype) -> NDArray[np.float64]:
    """Three generated slices in window units, averaged over blocks of pixels."""
    stack = HeartPhantom(1).acquire(slices=4, start=15.0, field_of_view=96.0)
    images = IntensityWindow.of(stack.data).normalise(stack.data[0])
    model = load_model(preset, "cpu", precision="float32")
    # Not by the option, which warns where the machine only emulates bfloat16.
    model.runtime = Runtime(model.device, precision)
    targets = np.array([5.0, 14.0, 27.0])
    slices = model.between(images, stack.positions, targets, stack.pixel_spacing, ASKED[preset])[0]
    count, height, width = slices.shape
    blocks = slices.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return blocks.mean((2, 4), dtype=np.float64)


def rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("preset", ASKED)
def test_answers_are_those_of_the_release(preset: Preset, precision: torch.dtype):
    released = json.loads(ANSWERS.read_text())[preset]
    found = rms(answer(preset, precision) - np.array(released["blocks"]))
    # Other processors round bfloat16 as coarsely, and float32 far more finely.
    assert found < released["bfloat16_rms"] * (3 if precision == torch.bfloat16 else 0.25)


def write() -> None:
    """Keep what the weights answer now, and how far bfloat16 is from it."""
    answers = {}
    for preset in ASKED:
        exact = answer(preset, torch.float32)
        coarse = rms(answer(preset, torch.bfloat16) - exact)
        answers[preset] = {"blocks": exact.round(6).tolist(), "bfloat16_rms": coarse}
    ANSWERS.write_text(json.dumps(answers) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
