from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from calid.errors import UsageError
from calid.inference.model import Model, load_model
from calid.inference.options import Answer
from calid.runtime import Runtime, choose_precision, choose_runtime

CPU = torch.device("cpu")
PLACES = np.arange(3) * 10.0


@pytest.fixture
def images() -> np.ndarray:
    coarse = torch.from_numpy(np.random.default_rng(0).random((1, 3, 5, 5), np.float32))
    return nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic")[0].clip(0, 1).numpy()


def test_auto_on_a_cpu_is_torch_in_its_best_precision():
    chosen = choose_runtime("cpu")
    assert chosen == Runtime(CPU, choose_precision(CPU))


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        (("cpu", "float16"), "`precision`"),
        (("tpu", "auto"), "`device`"),
    ],
)
def test_names_that_do_not_exist_or_fit_are_refused(options, subject):
    with pytest.raises(UsageError) as caught:
        choose_runtime(*options)
    assert caught.value.subject == subject


def answer(model: Model, images: np.ndarray, samples: int = 0) -> np.ndarray:
    return model.between(
        images, PLACES, np.array([5.0, 12.0]), (1.5, 1.5), Answer(samples=samples, steps=1)
    )


@pytest.mark.slow
@pytest.mark.parametrize("samples", [0, 1])
def test_bfloat16_is_near_float32(images, samples):
    model = load_model(device="cpu", precision="float32")
    exact = answer(model, images, samples)
    model.runtime = Runtime(CPU, torch.bfloat16)
    rough = answer(model, images, samples)
    assert np.abs(rough - exact).max() > 0
    assert np.sqrt(np.mean((rough - exact) ** 2)) < 0.01
