"""Networks around the heart, registered slices elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_model import reconstructed

from calid.baselines.registration import blend
from calid.data.intensity import IntensityWindow
from calid.data.phantom import HeartPhantom
from calid.geometry.pixels import BORDER, FADE, PixelGrid, Region
from calid.inference.model import Model, load_model
from calid.stack import SliceStack

pytestmark = pytest.mark.slow

REGION = Region((32, 112), (16, 96), (144, 144))
"""Of a field of 216 mm, which is 144 pixels, without padding."""

INSIDE = (
    slice(32 + BORDER + FADE, 112 - BORDER - FADE),
    slice(16 + BORDER + FADE, 96 - BORDER - FADE),
)


@pytest.fixture(scope="module")
def model() -> Model:
    """Trained networks: only these look near at hand."""
    return load_model(device="cpu", precision="float32")


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.setattr("calid.inference.reconstruct.heart_region", lambda *given: REGION)


def heart(**options: object) -> SliceStack:
    wanted = {"slices": 3, "start": 20.0, "field_of_view": 216.0, "noise": 0.01} | options
    return HeartPhantom(3).acquire(**wanted)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def still() -> SliceStack:
    return heart()


def test_inside_it_is_the_answer_of_networks_that_see_everything(model, still):
    assert PixelGrid.of(still.shape, still.pixel_spacing).size == REGION.grid
    part = reconstructed(model, still, factor=2, region="heart", dial=0)
    whole = reconstructed(model, still, factor=2, dial=0)
    assert part.region == (REGION.rows, REGION.columns)
    assert whole.region is None
    np.testing.assert_array_equal(part.data[:, part.acquired], still.data)
    spread = float(np.percentile(still.data, 99.5))
    away = np.abs(part.data.astype(float) - whole.data)[0] / spread
    assert away[:, *INSIDE].max() < 0.02
    assert away[1, :, 112:].mean() > 0, "elsewhere it is another answer"
    # There is no step where they meet.
    steps = np.abs(np.diff(part.data[0, 1].astype(float), axis=1))[32:112] / spread
    usual = np.abs(np.diff(whole.data[0, 1].astype(float), axis=1))[32:112] / spread
    for side in (16, 96):
        assert steps[:, side - 1].mean() < usual[:, side - 1].mean() + 0.01


def test_outside_of_it_are_registered_slices(model, still):
    part = reconstructed(model, still, factor=2, region="heart")
    window = IntensityWindow.of(still.data)
    images = window.normalise(still.data[0])
    wanted = blend(images, still.positions, np.array([5.0, 15.0]), still.pixel_spacing)
    found = window.normalise(part.data[0, ~part.acquired])
    wanted = wanted[:, :, 112:].clip(0, found.max())
    np.testing.assert_allclose(found[:, :, 112:], wanted, atol=0.01)


def test_films_have_one_region_for_all_frames(model):
    film = heart(slices=2, phases=tuple(np.arange(4) / 4))
    part = reconstructed(model, film, factor=2, region="heart", dial=0)
    whole = reconstructed(model, film, factor=2, dial=0)
    assert part.frames_together == whole.frames_together == 4
    away = np.abs(part.data.astype(float) - whole.data) / float(np.percentile(film.data, 99.5))
    assert away[..., *INSIDE].max() < 0.02
    assert away[:, 1, :, 112:].mean() > 0


def test_samples_are_drawn_everywhere(model, still):
    drawn = reconstructed(model, still, factor=2, region="heart", samples=1, steps=1)
    assert drawn.region is None
