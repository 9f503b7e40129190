"""Released weights are those that were released."""

from __future__ import annotations

from pathlib import Path

import pytest

from calid import weights
from calid.errors import WeightsError
from calid.io.sidecar import sha256
from calid.weights import FOLDER, SUMS, preset_weights, weights_path


def test_every_released_file_has_its_line():
    lines = sorted(f"{sha256(p)}  {p.name}" for p in FOLDER.glob("*.safetensors"))
    assert sorted((FOLDER / SUMS).read_text().splitlines()) == lines
    assert len(lines) >= 4


def test_a_flipped_bit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("autoencoder.safetensors", SUMS):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    path = weights_path("autoencoder")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not the one that was released"):
        weights_path("autoencoder")
    with pytest.raises(WeightsError, match="not in the package"):
        weights_path("default")


def test_without_sums_no_weights_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = "autoencoder.safetensors"
    (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="not the one that was released"):
        weights_path("autoencoder")


def test_own_weights_stand_in_for_released_ones_and_the_rest_is_released(tmp_path: Path):
    released = preset_weights("default")
    assert {n: p.parent for n, p in released.items()} == dict.fromkeys(
        ("autoencoder", "default"), FOLDER
    )
    own = tmp_path / "default.safetensors"
    own.write_bytes(released["default"].read_bytes())
    assert preset_weights("default", tmp_path) == released | {"default": own}
    with pytest.raises(WeightsError, match="holds neither"):
        preset_weights("paper", tmp_path)
