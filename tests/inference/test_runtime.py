from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calid.errors import CalidWarning, UsageError
from calid.inference.load import load_model
from calid.inference.model import Model, Sampling
from calid.inference.runtime import Runtime, choose_runtime
from calid.precision import choose_precision

CPU = torch.device("cpu")
PLACES = np.arange(3) * 10.0


@pytest.fixture
def openvino():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        pytest.importorskip("openvino")


@pytest.fixture
def images() -> np.ndarray:
    coarse = torch.from_numpy(np.random.default_rng(0).random((1, 3, 5, 5), np.float32))
    return nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic")[0].clip(0, 1).numpy()


def test_auto_on_a_cpu_is_torch_in_its_best_precision():
    chosen = choose_runtime("cpu")
    assert chosen == Runtime(CPU, "torch", choose_precision(CPU))


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        (("cpu", "tensorrt", "auto"), "--runtime"),
        (("cpu", "torch", "float16"), "--precision"),
        (("tpu", "auto", "auto"), "--device"),
        (("cuda", "openvino", "auto"), "--runtime openvino"),
    ],
)
def test_names_that_do_not_exist_or_fit_are_refused(options, subject):
    with pytest.raises(UsageError) as caught:
        choose_runtime(*options)
    assert caught.value.subject == subject


def test_without_openvino_the_remedy_is_the_extra(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"not installed.*calid\[openvino\].*--runtime torch"):
        choose_runtime("cpu", "openvino")


def answer(model: Model, images: np.ndarray, samples: int = 0) -> np.ndarray:
    return model.between(images, PLACES, np.array([5.0, 12.0]), (1.5, 1.5), Sampling(samples, 1))


@pytest.mark.slow
@pytest.mark.parametrize("samples", [0, 1])
def test_bfloat16_is_near_float32(images, samples):
    model = load_model(device="cpu", precision="float32")
    exact = answer(model, images, samples)
    model.runtime = Runtime(CPU, "torch", torch.bfloat16)
    rough = answer(model, images, samples)
    assert np.abs(rough - exact).max() > 0
    assert np.sqrt(np.mean((rough - exact) ** 2)) < 0.01


@pytest.mark.nightly
@pytest.mark.usefixtures("openvino")
def test_openvino_agrees_with_torch_for_the_mean_and_for_a_sample(images):
    plain = load_model(device="cpu", precision="float32")
    compiled = load_model(device="cpu", runtime="openvino", precision="float32")
    assert compiled.runtime.name == "openvino"
    for samples in (0, 1):
        expected = answer(plain, images, samples)
        np.testing.assert_allclose(answer(compiled, images, samples), expected, atol=1e-3)
    for part in ("correspondence", "denoiser"):
        assert list(getattr(compiled.interpolator, part).forward.programs.values()) != [None]


@dataclass(frozen=True)
class Pair:
    first: Tensor
    rest: list[Tensor]


class Swap(nn.Module):
    """Takes and gives nested values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, pair: Pair, scale: float) -> Pair:
        return Pair(scale * self.layer(pair.rest[0]), [pair.first, pair.rest[1] + 1])


@pytest.mark.nightly
@pytest.mark.usefixtures("openvino")
def test_a_compiled_method_keeps_structure_and_constants_apart():
    from calid.inference.openvino import compile_method

    torch.manual_seed(0)
    plain, compiled = Swap().eval(), Swap().eval()
    compiled.load_state_dict(plain.state_dict())
    compile_method(compiled, "forward", torch.float32)
    for size, scale in ((8, 1.0), (8, 3.0), (6, 1.0)):
        pair = Pair(torch.randn(1, 2, 4, 4), [torch.randn(1, 2, size, size), torch.arange(3)])
        with torch.no_grad():
            expected, found = plain(pair, scale), compiled(pair, scale)
        torch.testing.assert_close(found.first, expected.first, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.rest[0], expected.rest[0])
        torch.testing.assert_close(found.rest[1], expected.rest[1])
    assert len(compiled.forward.programs) == 3


class Counting(nn.Module):
    """Gives another answer at every call, which no trace can."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


@pytest.mark.nightly
@pytest.mark.usefixtures("openvino")
def test_what_cannot_be_traced_stays_with_torch():
    from calid.inference.openvino import compile_method

    module = Counting()
    compile_method(module, "forward", torch.float32)
    with pytest.warns(CalidWarning, match="cannot compile Counting"):
        module(torch.ones(1, 2, 3, 3))
    before = module.calls
    assert float(module(torch.ones(1, 2, 3, 3)).max()) == before + 1


@pytest.mark.nightly
@pytest.mark.usefixtures("openvino")
def test_a_program_that_differs_from_torch_is_not_used(monkeypatch):
    from calid.inference import openvino

    program = lambda tensors: 1.01 * tensors[0]  # noqa: E731
    monkeypatch.setattr(openvino.Compiled, "_compile", lambda *given: program)
    module = nn.Identity()
    openvino.compile_method(module, "forward", torch.float32)
    with pytest.warns(CalidWarning, match=r"cannot compile Identity.*1\.0%"):
        assert float(module(torch.ones(2, 2)).max()) == 1.0
    assert float(module(torch.ones(2, 2)).max()) == 1.0


@pytest.mark.nightly
@pytest.mark.usefixtures("openvino")
def test_openvino_is_loaded_without_what_reports_its_use():
    code = (
        "import warnings, sys; warnings.simplefilter('ignore')\n"
        "from calid.inference.openvino import load_openvino\n"
        "load_openvino()\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "assert telemetry_utils.tm.__name__.endswith('telemetry_stub')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
