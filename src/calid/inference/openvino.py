"""Networks compiled by OpenVINO, for CPUs; the extra ``calid[openvino]``.

A method of a module is traced with its first arguments, compiled, checked against torch and
then used in torch's place. What a module does inside is of no interest here: arguments and
results are tensors, alone or in dataclasses, lists and tuples. What cannot be compiled stays
with torch, and says so.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from calid.errors import CalidWarning, UsageError

__all__ = ["Compiled", "compile_method", "compile_networks", "load_openvino"]

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest accepted root-mean-square difference to torch, as a share of the output's."""

TRACED = 64
"""Sides in pixels of the example from which a method of any image size is traced."""


def load_openvino() -> ModuleType:
    """The library, without the part of it that reports its use over the network.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    # The converter reports every import and conversion unless this package cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise UsageError(
            "--runtime openvino",
            "OpenVINO is not installed.",
            "Run pip install 'calid[openvino]', or use --runtime torch.",
        ) from error
    return openvino  # type: ignore[no-any-return]


def compile_method(
    module: nn.Module, name: str, precision: torch.dtype, any_size: bool = False
) -> None:
    """Let OpenVINO answer ``module.name(...)`` from now on.

    Parameters
    ----------
    module
        In evaluation mode, on the CPU.
    precision
        float32 or bfloat16.
    any_size
        The method takes and gives one ``(batch, channels, height, width)`` and works on any
        batch, height and width: compiled once. Otherwise once for all shapes that occur.
    """
    setattr(module, name, Compiled(module, getattr(module, name), precision, any_size))


def compile_networks(
    autoencoder: nn.Module, interpolator: nn.Module, precision: torch.dtype
) -> None:
    """Let OpenVINO answer for both networks of a preset, as `compile_method`."""
    for name in ("encode", "decode"):
        compile_method(autoencoder, name, precision, any_size=True)
    for part in interpolator.children():
        compile_method(part, "forward", precision)


class Compiled:
    """A module's method, computed by OpenVINO.

    Parameters
    ----------
    module
        Owner of the parameters.
    method
        What to compile.
    precision, any_size
        As `compile_method`.
    """

    def __init__(
        self, module: nn.Module, method: Callable[..., Any], precision: torch.dtype, any_size: bool
    ) -> None:
        self.module, self.method = module, method
        self.precision, self.any_size = precision, any_size
        self.programs: dict[object, Callable[[list[Tensor]], Any] | None] = {}

    @torch.no_grad()
    def __call__(self, *given: Any) -> Any:
        """What the method returns."""
        tensors, signature = list(_tensors(given)), _signature(given, not self.any_size)
        if signature not in self.programs:
            self.programs[signature] = self._checked(given, tensors)
        program = self.programs[signature]
        return self.method(*given) if program is None else program(tensors)

    def _checked(
        self, given: tuple[Any, ...], tensors: list[Tensor]
    ) -> Callable[[list[Tensor]], Any] | None:
        """A program that agrees with torch on its first input, or none."""
        try:
            program = self._compile(given, tensors)
            found = list(_tensors(program(tensors)))
        except Exception as error:  # the converter raises whatever it meets
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        else:
            expected = list(_tensors(self.method(*given)))
            worst = max(_difference(a, b) for a, b in zip(found, expected, strict=True))
            if worst <= TOLERANCE[self.precision]:
                return program
            reason = f"its result differs from torch's by {worst:.1%}"
        name = type(self.module).__name__
        warnings.warn(
            f"OpenVINO cannot compile {name} ({reason}); torch computes it.",
            CalidWarning,
            stacklevel=4,
        )
        return None

    def _compile(
        self, given: tuple[Any, ...], tensors: list[Tensor]
    ) -> Callable[[list[Tensor]], Any]:
        openvino = load_openvino()
        traced = _Traced(self.module, self.method, given).eval()
        example = tensors
        if self.any_size:
            example = [tensors[0][:2, :, :TRACED, :TRACED].contiguous()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = openvino.convert_model(traced, example_input=tuple(example))
        shapes = [[-1, len(tensors[0][0]), -1, -1]] if self.any_size else [t.shape for t in tensors]
        graph.reshape({n: list(shape) for n, shape in enumerate(shapes)})
        hint = "bf16" if self.precision == torch.bfloat16 else "f32"
        threads = torch.get_num_threads()
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
        request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

        def run(tensors: list[Tensor]) -> Any:
            arrays = [t.contiguous().numpy() for t in tensors]
            results = request.infer(arrays, share_inputs=True)
            found = [torch.from_numpy(np.array(results[n])) for n in range(len(results))]
            return _rebuild(traced.result, iter(found))

        return run


class _Traced(nn.Module):
    """A method with plain tensors as arguments and results, as tracing wants them."""

    def __init__(
        self, module: nn.Module, method: Callable[..., Any], given: tuple[Any, ...]
    ) -> None:
        super().__init__()
        self.module, self.method, self.given = module, method, given
        self.result: Any = None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        self.result = self.method(*_rebuild(self.given, iter(tensors)))
        return tuple(_tensors(self.result))


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of a nested value, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))


def _rebuild(value: Any, tensors: Iterator[Tensor]) -> Any:
    """A value of the same structure around other tensors."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, list | tuple):
        return type(value)(_rebuild(part, tensors) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return type(value)(**{n: _rebuild(getattr(value, n), tensors) for n in names})
    return value


def _signature(value: Any, shapes: bool) -> object:
    """Everything about arguments that a compiled program takes for granted."""
    if isinstance(value, Tensor):
        return tuple(value.shape) if shapes else (value.ndim, value.dtype)
    if isinstance(value, list | tuple):
        return tuple(_signature(part, shapes) for part in value)
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return tuple(_signature(getattr(value, n), shapes) for n in names)
    return value


def _difference(found: Tensor, expected: Tensor) -> float:
    size = expected.double().square().mean().sqrt().clamp(min=1e-6)
    return float((found.double() - expected.double()).square().mean().sqrt() / size)
