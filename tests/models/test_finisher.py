from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from calid.errors import WeightsError
from calid.geometry.region import Region
from calid.models.context import Acquired, nearest_context, register
from calid.models.filters import gaussian_means
from calid.models.finisher import KIND, Finisher, FinisherConfig, load_finisher
from calid.models.motion import warp
from calid.models.store import save_tensors
from calid.models.surroundings import Surroundings, expected, surroundings

SIDE, PLACES = 48, np.array([0.0, 10.0, 20.0, 30.0])
SMALL = FinisherConfig(widths=(8, 16), depth=(1, 1), rise=(1,), embedding=8)
WIDE = Region((0, SIDE), (16, 48), (SIDE, SIDE))


def smooth(count: int, seed: int = 0) -> Tensor:
    noise = torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return 6 * (gaussian_means(noise, 2.0) - 0.5) + 0.5


def around(*targets: float, region: Region | None = None) -> Surroundings:
    acquired = Acquired.of(smooth(4), lambda x: F.avg_pool2d(x, 4))
    seen = register(acquired, nearest_context(PLACES, np.array(targets)))
    return dataclasses.replace(surroundings(acquired, seen), region=region)


def perturbed(seed: int = 0) -> Finisher:
    torch.manual_seed(seed)
    network = Finisher(SMALL).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.05 * torch.randn(parameter.shape)
    return network


def test_before_training_it_changes_nothing() -> None:
    seen, decoded = around(13.0, 15.0), smooth(2, seed=1)
    with torch.no_grad():
        mean, after = Finisher(SMALL).finish(decoded, seen)
    torch.testing.assert_close(mean, expected(decoded, seen), rtol=0, atol=1e-5)
    torch.testing.assert_close(after.moved, seen.moved, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.blended, seen.blended, rtol=0, atol=1e-5)


def test_an_acquired_slice_stays_as_it_is() -> None:
    seen = around(10.0001)
    before = seen.neighbours.nearest[:, :1]
    mean, after = perturbed().finish(smooth(1, seed=1), seen)
    torch.testing.assert_close(mean, before, rtol=0, atol=1e-3)
    torch.testing.assert_close(after.moved[:, :1], before, rtol=0, atol=1e-3)
    far = around(15.0)
    mean, after = perturbed().finish(smooth(1, seed=1), far)
    assert float((mean - expected(smooth(1, seed=1), far)).abs().mean()) > 0.01
    assert float((after.moved - far.moved).abs().mean()) > 0.01


def test_fields_move_and_weigh_the_slices_and_mix_them_into_the_mean() -> None:
    seen, decoded, network = around(14.0), smooth(1, seed=1), Finisher(SMALL)
    gate = float(seen.gate)
    x, y, odds, weight = 0.5, -0.25, 1.0, 0.3
    with torch.no_grad():
        # Displacements count in pixels of the network, of which one is four of the image.
        network.fields.bias.copy_(torch.tensor([x, y, 0.0, 0.0, odds, weight]))
        mean, after = network.finish(decoded, seen)
    moved = seen.neighbours.displacement.clone()
    moved[:, 0] += 4 * gate * torch.tensor([x, y])[None, :, None, None]
    torch.testing.assert_close(after.neighbours.displacement, moved, rtol=0, atol=1e-5)
    arrived = warp(seen.neighbours.nearest[:, :1], moved[:, 0])
    stay = (1 - gate**2) ** 2
    wanted = stay * seen.neighbours.nearest[:, :1] + (1 - stay) * arrived
    torch.testing.assert_close(after.moved[:, :1], wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.moved[:, 1:], seen.moved[:, 1:], rtol=0, atol=1e-5)
    first = 1 / (1 + 4 / 6 * np.exp(-gate * odds))
    torch.testing.assert_close(after.share[:, :1], torch.full_like(after.share[:, :1], first))
    registered = 1 - gate**2 + gate**3 * weight
    wanted = registered * after.blended + (1 - registered) * decoded
    torch.testing.assert_close(mean, wanted, rtol=0, atol=1e-5)


def test_shares_of_both_slices_sum_to_one() -> None:
    _, after = perturbed().finish(smooth(2, seed=1), around(12.0, 18.0))
    torch.testing.assert_close(after.share.sum(1), torch.ones(2, SIDE, SIDE))
    assert float(after.share[0, 0].std()) > 0


def test_it_looks_at_all_that_it_is_shown() -> None:
    seen, decoded, network = around(14.0), smooth(1, seed=1), perturbed()
    mean, _ = network.finish(decoded, seen)
    near = seen.neighbours
    others = [
        dataclasses.replace(seen, neighbours=dataclasses.replace(near, **change))
        for change in (
            {"beyond": near.beyond + 0.1},
            {"distance": near.distance + torch.tensor([0.0, 0.0, -5.0, 5.0])},
            {"present": ~near.present},
        )
    ]
    for other in others:
        assert float((network.finish(decoded, other)[0] - mean).abs().max()) > 1e-5


def test_outside_of_a_region_the_registered_slices_stay() -> None:
    seen, decoded, network = around(14.0, region=WIDE), smooth(1, seed=1), perturbed()
    mean, after = network.finish(WIDE.cut(decoded), seen)
    for found in (mean, after.blended):
        torch.testing.assert_close(found[..., :16], seen.blended[..., :16], rtol=0, atol=1e-5)
    part = dataclasses.replace(around(14.0), region=None)
    whole, _ = network.finish(decoded, part)
    away = (mean - whole).abs()
    assert float(away[..., 36:].mean()) < 0.2 * float(away[..., :16].mean())


def test_a_finisher_survives_its_file(tmp_path: Path) -> None:
    path, network = tmp_path / "finisher.safetensors", perturbed()
    save_tensors(network, KIND, network.config, {"psnr": 20.0}, path)
    found = load_finisher(path)
    assert found.config == SMALL
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    save_tensors(network, "segmentation", network.config, {}, path)
    with pytest.raises(WeightsError, match="'segmentation', not 'finisher'"):
        load_finisher(path)
