from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from calid.io.sidecar import sha256
from calid.runtime import choose_runtime
from calid.segmentation.segment import Segmenter


class Bands(nn.Module):
    """Labels by brightness: a quarter of the window each."""

    def forward(self, images: Tensor) -> Tensor:
        centres = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0])[:, None, None]
        return -200 * (images.float() - centres).square()


@pytest.fixture
def untrained(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Segmentation by `Bands`, and a folder of small files to take the weights' hashes of."""
    folder = tmp_path_factory.mktemp("weights")
    # Imported while the loader is replaced, it would keep the stand-in for good.
    import_module("calid.segmentation.heart")
    for name in ("segmentation", "autoencoder", "default"):
        (folder / f"{name}.safetensors").write_text(name)
    sums = (f"{sha256(path)}  {path.name}\n" for path in folder.glob("*.safetensors"))
    (folder / "SHA256SUMS").write_text("".join(sums))
    monkeypatch.setattr("calid.weights.FOLDER", folder)
    monkeypatch.setattr(
        "calid.segmentation.segment.load_segmenter",
        lambda device="auto": Segmenter(Bands(), choose_runtime("cpu")),
    )
    return folder
