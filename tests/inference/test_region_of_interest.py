"""Networks around the heart, registered slices elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from calid.data.phantom import HeartPhantom
from calid.errors import UsageError
from calid.geometry.grid import NetworkGrid
from calid.geometry.region import BORDER, FADE, Region
from calid.inference.load import load_model
from calid.inference.model import Model
from calid.models.context import Acquired, nearest_context
from calid.models.interpolator import Interpolator
from calid.models.surroundings import expected, texture
from calid.stack import SliceStack

pytestmark = pytest.mark.slow

REGION = Region((32, 112), (16, 96), (144, 144))
"""Of a field of 216 mm, which is 144 pixels of the networks' grid, without padding."""

INSIDE = (
    slice(32 + BORDER + FADE, 112 - BORDER - FADE),
    slice(16 + BORDER + FADE, 96 - BORDER - FADE),
)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(device="cpu", precision="float32")


def heart(**options: object) -> SliceStack:
    wanted = {"slices": 3, "start": 20.0, "field_of_view": 216.0, "noise": 0.01} | options
    return HeartPhantom(3).acquire(**wanted)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def still() -> SliceStack:
    return heart()


def size_of(stack: SliceStack) -> tuple[int, ...]:
    grid = NetworkGrid.of(stack.shape[2:], stack.pixel_spacing)
    return tuple(grid.enter(torch.zeros(1, *stack.shape[2:])).shape[1:])


def test_inside_it_is_the_answer_of_networks_that_see_everything(model, still):
    assert size_of(still) == REGION.grid
    part = model.reconstruct(still, factor=2, region=REGION)
    whole = model.reconstruct(still, factor=2)
    assert part.region == (REGION.rows, REGION.columns)  # voxels are the networks' pixels here
    assert whole.region is None
    np.testing.assert_array_equal(part.data[:, part.acquired], still.data)
    spread = float(np.percentile(still.data, 99.5))
    away = np.abs(part.data.astype(float) - whole.data)[0] / spread
    assert away[:, *INSIDE].max() < 0.01
    # Elsewhere it is another answer, though not far off, and there is no step where they meet.
    outside = away[1, :, 112:]
    assert 0 < outside.mean() < 0.05
    steps = np.abs(np.diff(part.data[0, 1].astype(float), axis=1))[32:112] / spread
    usual = np.abs(np.diff(whole.data[0, 1].astype(float), axis=1))[32:112] / spread
    for side in (16, 96):
        assert steps[:, side - 1].mean() < usual[:, side - 1].mean() + 0.01


def test_outside_of_it_are_registered_slices_with_their_texture(model, still):
    part = model.reconstruct(still, factor=2, region=REGION)
    assert isinstance(model.interpolator, Interpolator)
    from calid.data.intensity import IntensityWindow

    window = IntensityWindow.of(still.data)
    images = torch.from_numpy(window.normalise(still.data[0]))[:, None]
    with torch.no_grad():
        acquired = Acquired.of(images, model.autoencoder.encode)
        context = nearest_context(still.positions, np.array([5.0, 15.0]))
        known, _ = model.interpolator.known(acquired, context)
        mean = expected(known.around.blended, known.around)
        wanted = (mean + texture(mean, known.around))[:, 0].clamp(0, 1.5).numpy()
    found = window.normalise(part.data[0, ~part.acquired])
    np.testing.assert_allclose(
        found[:, :, 112:], wanted[:, :, 112:].clip(0, found.max()), atol=0.01
    )


def test_films_have_one_region_for_all_frames(model):
    phases = tuple(np.arange(4) / 4)
    film = heart(slices=2, phases=phases)
    part = model.reconstruct(film, factor=2, region=REGION)
    whole = model.reconstruct(film, factor=2)
    assert part.frames_together == whole.frames_together == 4
    away = np.abs(part.data.astype(float) - whole.data) / float(np.percentile(film.data, 99.5))
    assert away[..., *INSIDE].max() < 0.01
    assert away[:, 1, :, 112:].mean() > 0


def test_samples_are_not_drawn_of_a_region(model, still):
    for options in ({"samples": 1}, {"uncertainty": True}):
        with pytest.raises(UsageError, match="everywhere"):
            model.reconstruct(still, region=REGION, **options)
