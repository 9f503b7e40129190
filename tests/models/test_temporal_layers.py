"""Layers that mix over the frames of a film, alone and inside the default preset."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from calid.models.context import Acquired, Context, nearest_context
from calid.models.interpolator import (
    Interpolator,
    InterpolatorConfig,
    with_temporal_layers,
    without_temporal_layers,
)
from calid.models.layers import channels_last
from calid.models.store import load_interpolator, save_interpolator
from calid.models.temporal import STILL, Frames, TemporalAttention, temporal_layers
from calid.precision import computing, exact

pytestmark = pytest.mark.usefixtures("inside")

CHANNELS, SLICES = 3, 4
POSITIONS, TARGETS = np.arange(SLICES) * 10.0, np.array([13.0, 16.0])


def shaken(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """With all parameters moved, so that nothing is zero by its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval().requires_grad_(False)


def layer(heads: int = 4) -> TemporalAttention:
    torch.manual_seed(0)
    found = shaken(TemporalAttention(16, heads))
    assert isinstance(found, TemporalAttention)
    return found


def maps(frames: int, targets: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((frames * targets, 16, 4, 6), generator=generator)


def rolled(x: Tensor, frames: int, by: int) -> Tensor:
    return x.unflatten(0, (frames, -1)).roll(by, 0).flatten(0, 1)


def test_a_new_layer_is_the_identity_and_learns():
    new = TemporalAttention(16, 4)
    x = maps(6)
    torch.testing.assert_close(new(x, Frames(6, 6)), x, rtol=0, atol=0)
    new(x, Frames(6, 6)).square().sum().backward()
    assert new.exit.weight.grad is not None
    assert float(new.exit.weight.grad.abs().max()) > 0


def test_a_single_frame_passes_as_it_is():
    x = maps(1)
    assert layer()(x, STILL) is x
    assert layer()(x, Frames(1, 20)) is x


def test_a_film_that_stands_still_passes_as_it_is():
    still = maps(1).repeat(9, 1, 1, 1)
    torch.testing.assert_close(layer()(still, Frames(9, 9)), still, rtol=0, atol=2e-6)


@pytest.mark.parametrize("frames", [2, 6, 13, 25, 50])
def test_any_number_of_frames_mixes_and_rolls(frames):
    x, beat = maps(frames), Frames(frames, frames)
    found = layer()(x, beat)
    assert found.shape == x.shape
    assert float((found - x).abs().mean()) > 0.01
    for by in (1, frames // 2):
        again = layer()(rolled(x, frames, by), beat)
        torch.testing.assert_close(again, rolled(found, frames, by), rtol=0, atol=1e-5)


def test_time_has_a_direction():
    x, beat = maps(8), Frames(8, 8)
    back = x.unflatten(0, (8, -1)).flip(0).flatten(0, 1)
    there = layer()(x, beat).unflatten(0, (8, -1)).flip(0).flatten(0, 1)
    assert float((layer()(back, beat) - there).abs().max()) > 0.01


def test_the_first_frame_is_as_near_to_the_last_as_to_the_second():
    weights = layer()._bias(Frames(10, 10))
    torch.testing.assert_close(weights[:, 0, 9], weights[:, 1, 0], rtol=0, atol=0)
    torch.testing.assert_close(weights[:, 9, 0], weights[:, 0, 1], rtol=0, atol=0)
    part = layer()._bias(Frames(4, 10))
    torch.testing.assert_close(part, weights[:, :4, :4], rtol=0, atol=0)


def test_places_are_shares_of_the_cycle():
    coarse, fine = layer()._bias(Frames(7, 7)), layer()._bias(Frames(14, 14))
    torch.testing.assert_close(fine[:, ::2, ::2], coarse, rtol=0, atol=1e-5)


def test_targets_and_pixels_do_not_mix():
    x, beat = maps(6), Frames(6, 6)
    base = layer()(x, beat).unflatten(0, (6, 2))
    other = x.unflatten(0, (6, 2)).clone()
    other[3, 1, :4, 2, 4] += 1
    moved = layer()(other.flatten(0, 1), beat).unflatten(0, (6, 2)) - base
    touched = moved.abs().amax((0, 2)) > 1e-6
    expected = torch.zeros(2, 4, 6, dtype=torch.bool)
    expected[1, 2, 4] = True
    assert torch.equal(touched, expected)
    assert float(moved[0, 1, :, 2, 4].abs().max()) > 1e-4, "other frames hear of it"


def test_precision_and_layout_are_kept():
    x = maps(6).contiguous(memory_format=torch.channels_last)
    network = channels_last(layer())
    with exact(x.device):
        full = network(x, Frames(6, 6))
    assert full.is_contiguous(memory_format=torch.channels_last)
    with computing(x.device, torch.bfloat16):
        half = network(x.bfloat16(), Frames(6, 6))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.1)


def test_no_heads_are_no_layers():
    assert len(temporal_layers([8, 16], 0)) == 0
    assert [m.size for m in temporal_layers([8, 16], 2)] == [2, 4]  # type: ignore[union-attr]


# In the default preset.


def encode(images: Tensor) -> Tensor:
    small = torch.nn.functional.avg_pool2d(images, 4)
    return torch.cat([small, small.square(), 1 - small], 1)


def film(frames: int, seed: int = 0) -> Acquired:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((frames * SLICES, 1, 32, 32), generator=generator)
    return Acquired.of(images, encode, Frames(frames, frames))


def single() -> Interpolator:
    torch.manual_seed(1)
    found = shaken(Interpolator(InterpolatorConfig(CHANNELS, (8, 16, 16))))
    assert isinstance(found, Interpolator)
    return found


def trained() -> Interpolator:
    model = with_temporal_layers(single(), heads=2)
    for module in model.modules():
        if isinstance(module, TemporalAttention):
            shaken(module, 2)
    return model.requires_grad_(False)


def fill(model: Interpolator, known: Acquired, noisy: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(5)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator)

    filled = model.fill(known, POSITIONS, TARGETS, draw if noisy else None, 2, 1.0)
    return filled.latents.unflatten(0, (known.frames.count, -1))


def frame_of(known: Acquired, frame: int) -> Acquired:
    place = slice(frame * SLICES, (frame + 1) * SLICES)
    return Acquired(known.images[place], known.latents[place], known.encode)


def test_new_layers_change_no_answer():
    known, model = film(5), single()
    film_model = with_temporal_layers(model)
    assert film_model.config.temporal == 4
    assert with_temporal_layers(film_model) is film_model
    assert not film_model.training
    torch.testing.assert_close(fill(film_model, known), fill(model, known), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_frame_alone_is_answered_as_without_layers():
    known = frame_of(film(3), 1)
    for noisy in (False, True):
        torch.testing.assert_close(
            fill(trained(), known, noisy), fill(single(), known, noisy), rtol=0, atol=0
        )


@pytest.mark.parametrize("noisy", [False, True])
def test_frames_hear_of_each_other_and_roll(noisy):
    known, model = film(6), trained()
    found = fill(model, known, noisy)
    alone = torch.stack([fill(model, frame_of(known, n), noisy)[0] for n in range(6)])
    assert float((found - alone).abs().mean()) > 1e-3
    turned = [
        x.unflatten(0, (6, -1)).roll(2, 0).flatten(0, 1) for x in (known.images, known.latents)
    ]
    again = fill(model, Acquired(*turned, known.encode, known.frames), noisy)
    torch.testing.assert_close(again, found.roll(2, 0), rtol=0, atol=2e-5)


def test_the_denoiser_mixes_over_frames_too():
    model = trained().denoiser
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((4, CHANNELS, 8, 8), generator=generator)
    pyramid = [torch.randn((4, w, 8 // s, 8 // s), generator=generator) for w, s in
               ((8, 1), (16, 2), (16, 4))]  # fmt: skip
    t = torch.full((4,), 0.5)
    injected = model.inject(pyramid)
    single = model(x, t, injected)
    assert float((model(x, t, injected, Frames(4, 4)) - single).abs().max()) > 1e-3


def test_a_context_over_frames_repeats_its_targets_in_each():
    one = nearest_context(POSITIONS, TARGETS, 1)
    beat = Frames(3, 5)
    found = one.over(beat, SLICES)
    assert found.frames == beat
    assert found.index.tolist() == [[1, 2]] * 2 + [[5, 6]] * 2 + [[9, 10]] * 2
    torch.testing.assert_close(found.distance, one.distance.repeat(3, 1))
    assert found.to(torch.device("cpu")).frames == beat
    same = one.over(STILL, SLICES)
    assert torch.equal(same.index, one.index)
    assert Context.concatenate([one, one]).frames == STILL


@pytest.mark.slow
def test_files_say_whether_there_are_layers(tmp_path, inside):
    tolerance = {torch.float32: 0.05, torch.bfloat16: 0.2}[inside]
    save_interpolator(single(), tmp_path / "old.safetensors", {})
    save_interpolator(trained(), tmp_path / "new.safetensors", {})
    known = film(4)
    for name, heads, model in (("old", 0, single()), ("new", 2, trained())):
        loaded = load_interpolator(tmp_path / f"{name}.safetensors", "default")
        assert isinstance(loaded, Interpolator)
        assert loaded.config.temporal == heads
        torch.testing.assert_close(fill(loaded, known), fill(model, known), rtol=0, atol=tolerance)


def test_released_sizes_without_the_field_have_no_layers():
    assert not [n for n, _ in Interpolator(InterpolatorConfig()).named_parameters() if "mix" in n]


def test_taken_out_again_they_leave_the_network_of_single_frames():
    single = Interpolator(InterpolatorConfig(CHANNELS, (8, 16, 16)))
    film = with_temporal_layers(single, heads=2)
    again = without_temporal_layers(film)
    assert again.config == single.config
    assert without_temporal_layers(again) is again
    expected = single.state_dict()
    assert again.state_dict().keys() == expected.keys()
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
