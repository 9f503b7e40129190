"""Files that are not the weights they claim to be: refused, and nothing in them is run."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from calid.errors import WeightsError
from calid.models.store import load_autoencoder, load_interpolator, load_tensors
from calid.segmentation.segment import load_segmentation
from calid.weights import weights_path


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def trap(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps({"state": Trap(mark)}))


def torch_trap(path: Path, mark: Path) -> None:
    torch.save({"state": Trap(mark)}, path)


@pytest.mark.parametrize("write", [trap, torch_trap])
@pytest.mark.parametrize(
    "load",
    [load_autoencoder, load_segmentation, lambda path: load_interpolator(path, "default")],
)
def test_a_pickle_under_the_name_of_weights_is_not_run(tmp_path: Path, write, load) -> None:
    path, mark = tmp_path / "a.safetensors", tmp_path / "mark"
    write(path, mark)
    with pytest.raises(WeightsError, match=r"a\.safetensors.*cannot be read"):
        load(path)
    assert not mark.exists()


def released() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    state, config = load_tensors(weights_path("autoencoder"), "autoencoder")
    return {k: v.half() for k, v in state.items()}, config


def header(config: object, kind: str = "autoencoder") -> dict[str, str]:
    return {"kind": kind, "config": json.dumps(config), "figures": "{}"}


def test_the_writer_of_these_tests_is_sound(tmp_path: Path) -> None:
    state, config = released()
    (tmp_path / "a.safetensors").write_bytes(save(state, header(config)))
    load_autoencoder(tmp_path / "a.safetensors")


FIRST = next(iter(released()[1]))

FAULTS: dict[str, tuple[Any, str]] = {
    "another kind": (lambda c: header(c, "segmentation"), "holds 'segmentation'"),
    "no kind": (lambda c: {"config": json.dumps(c)}, "holds None"),
    "no configuration": (lambda c: {"kind": "autoencoder"}, "how its network is built"),
    "configuration is not JSON": (
        lambda c: {"kind": "autoencoder", "config": "{"},
        "how its network is built",
    ),
    "configuration is a number": (lambda c: header(3), "how its network is built"),
    "unknown size": (lambda c: header(c | {"wings": 2}), "another version"),
    "size is text": (lambda c: header(c | {FIRST: "many"}), "another version"),
    "size is negative": (lambda c: header(c | {FIRST: -4}), "another version|do not fit"),
    "size is none": (lambda c: header(c | {FIRST: None}), "another version"),
    "a network of terabytes": (
        lambda c: header({k: _larger(v) for k, v in c.items()}),
        "another version|do not fit",
    ),
}


def _larger(size: Any) -> Any:
    if isinstance(size, tuple):
        return [_larger(n) for n in size]
    return 2**17 if isinstance(size, int) and size > 4 else size


@pytest.mark.parametrize("fault", FAULTS)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path: Path, fault: str) -> None:
    make, rule = FAULTS[fault]
    state, config = released()
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(state, make(config)))
    with pytest.raises(WeightsError, match=rule) as caught:
        load_autoencoder(path)
    assert str(path) in caught.value.subject


def test_missing_parameters_and_other_shapes_are_refused(tmp_path: Path) -> None:
    state, config = released()
    name = next(iter(state))
    path = tmp_path / "a.safetensors"
    without = {k: v for k, v in state.items() if k != name}
    for broken in (without, state | {"more": torch.zeros(2)}, state | {name: torch.zeros(2)}):
        path.write_bytes(save(broken, header(config)))
        with pytest.raises(WeightsError, match="do not fit"):
            load_autoencoder(path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    content = weights_path("autoencoder").read_bytes()
    path = tmp_path / "a.safetensors"
    for broken in (
        b"",
        content[:5],
        content[:-1],
        content + b"more",
        struct.pack("<Q", 2**62) + content[8:],
        content[:8] + b"\xff" * 40 + content[48:],
    ):
        path.write_bytes(broken)
        with pytest.raises(WeightsError, match=r"a\.safetensors"):
            load_autoencoder(path)
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        load_autoencoder(path)


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_weights_of_the_first_interpolator_are_named_as_such(tmp_path: Path, preset: str) -> None:
    path = tmp_path / f"{preset}.safetensors"
    path.write_bytes(save({"a": torch.zeros(1)}, header({"channels": 8}, preset)))
    with pytest.raises(WeightsError, match=rf"calid 0\.1.*calid train {preset}"):
        load_interpolator(path, preset)
