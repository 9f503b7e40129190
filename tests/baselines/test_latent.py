"""Interpolation of latents: the two fillers, and the geometry of the sphere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from calid.baselines.latent_linear import LatentLinear
from calid.baselines.latent_spherical import LatentSpherical, slerp
from calid.inference.model import Model, Sampling
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.context import Acquired
from calid.models.interpolator import LatentFiller

pytestmark = pytest.mark.usefixtures("precision")

POSITIONS = np.array([0.0, 10.0, 22.0])
FILLERS = [LatentLinear(), LatentSpherical()]


def acquired(seed: int = 0) -> Acquired:
    latents = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(seed))
    return Acquired(torch.zeros(3, 1, 20, 24), latents, lambda x: x)


def fill(filler: LatentFiller, known: Acquired, targets: list[float]) -> Tensor:
    filled = filler.fill(known, POSITIONS, np.array(targets), None, filler.default_steps, 1.0)
    assert filled.around is None
    return filled.latents


def unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)


def lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=(1, 2, 3))


def shares(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None, None]


@pytest.mark.parametrize("filler", FILLERS)
def test_at_an_acquired_position_the_latent_is_the_slice_s_own(filler):
    known = acquired()
    for place, latent in zip(POSITIONS, known.latents, strict=True):
        torch.testing.assert_close(fill(filler, known, [place])[0], latent)


def test_a_latent_that_is_a_line_in_z_is_exact_between_uneven_slices():
    slope = acquired().latents[:1]
    places = torch.from_numpy(POSITIONS).float()[:, None, None, None]
    known = Acquired(torch.zeros(3, 1, 20, 24), 1 + slope * places, lambda x: x)
    for targets in ([1.0, 7.0], [13.0, 16.0, 21.0]):
        wanted = 1 + slope * torch.tensor(targets)[:, None, None, None]
        answer = fill(LatentLinear(), known, targets)
        assert answer.shape == (len(targets), 4, 5, 6)
        torch.testing.assert_close(answer, wanted)


def test_slerp_keeps_the_length_of_unit_vectors_and_turns_evenly():
    first, second = unit(acquired().latents[:1]), unit(acquired(1).latents[:1])
    answer = slerp(first.expand(4, -1, -1, -1), second, shares(0.0, 0.25, 0.5, 1.0))
    torch.testing.assert_close(lengths(answer), torch.ones(4))
    turned = torch.arccos((answer * first).sum((1, 2, 3)).clamp(-1, 1).double())
    torch.testing.assert_close(
        turned[1:3] / turned[3], torch.tensor([0.25, 0.5]).double(), atol=1e-3, rtol=0
    )


def test_the_sphere_keeps_energy_that_the_line_loses():
    known = acquired()
    line, sphere = (lengths(fill(f, known, [5.0]))[0] for f in FILLERS)
    ends = lengths(known.latents[:2])
    assert line < 0.85 * ends.min()
    assert ends.min() * 0.95 < sphere < ends.max() * 1.05


@pytest.mark.parametrize("scale", [1.0, 3.0, 1 + 1e-4, -1.0, -2.0, 0.0])
def test_parallel_opposite_and_zero_latents_are_joined_by_a_line(scale):
    first = acquired().latents[:1]
    answer = slerp(first, scale * first, shares(0.25))
    torch.testing.assert_close(answer, (0.75 + 0.25 * scale) * first, atol=1e-5, rtol=1e-5)


def test_just_before_parallel_the_sphere_and_the_line_agree():
    first, other = acquired().latents[:1], acquired(1).latents[:1]
    for nudge in (0.5e-3, 2e-3):  # either side of the switch
        second = first + nudge * other
        torch.testing.assert_close(
            slerp(first, second, shares(0.3)), 0.7 * first + 0.3 * second, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("filler", FILLERS)
def test_a_model_takes_them_for_its_interpolator_on_any_grid(filler):
    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig(3, (8, 8))).eval()
    model = Model(autoencoder, filler, "latent", torch.device("cpu"))
    images = np.random.default_rng(0).random((3, 45, 37), np.float32)
    targets = np.array([2.5, 5.0, 14.0])
    mean = model.between(images, POSITIONS, targets, (1.9, 1.2), Sampling(0))
    assert mean.shape == (1, 3, 45, 37)
    drawn = model.between(images, POSITIONS, targets, (1.9, 1.2), Sampling(1, seed=3))
    np.testing.assert_array_equal(mean, drawn)
