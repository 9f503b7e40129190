from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from calid.errors import WeightsError
from calid.models.autoencoder import Autoencoder, AutoencoderConfig, Posterior
from calid.models.store import load_autoencoder, save_autoencoder, save_tensors

pytestmark = pytest.mark.usefixtures("inside")

TINY = AutoencoderConfig(3, widths=(8, 16), encoder_depth=(1, 1), decoder_depth=(1, 1))

MARGIN = 48
"""Pixels that the tiny network sees around a pixel, encoder and decoder together, at most."""


def autoencoder(seed: int = 0, config: AutoencoderConfig = TINY) -> Autoencoder:
    """A network as after training: no branch is zero."""
    torch.manual_seed(seed)
    model = Autoencoder(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(32, 32), (36, 64), (4, 20)])
def test_a_latent_is_a_quarter_as_wide_and_as_high(height: int, width: int) -> None:
    model, x = autoencoder(), images(2, 1, height, width)
    latents = model.encode(x)
    assert latents.shape == (2, 3, height // 4, width // 4)
    assert model.decode(latents).shape == x.shape


@torch.no_grad()
def test_the_buffers_rescale_latents_and_leave_images_alone() -> None:
    model, x = autoencoder(), images(2, 1, 32, 32)
    plain, shown = model.encode(x), model.decode(model.encode(x))
    assert float(shown.std()) > 0.01, "the images are not trivially equal"
    model.mean.copy_(torch.tensor([1.0, -2.0, 0.5])[:, None, None])
    model.std.copy_(torch.tensor([0.5, 2.0, 4.0])[:, None, None])
    scaled = model.encode(x)
    torch.testing.assert_close(scaled[:, 0], (plain[:, 0] - 1.0) / 0.5)
    torch.testing.assert_close(scaled[:, 1], (plain[:, 1] + 2.0) / 2.0)
    torch.testing.assert_close(model.decode(scaled), shown, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_encoding_is_the_posterior_mean_and_deterministic() -> None:
    model, x = autoencoder(), images(2, 1, 16, 16)
    torch.testing.assert_close(model.encode(x), model.posterior(x).mean, rtol=0, atol=0)
    torch.testing.assert_close(model.encode(x), model.encode(x), rtol=0, atol=0)


@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other(inside: torch.dtype) -> None:
    model, x = autoencoder(), images(3, 1, 16, 16)
    among, alone = model.encode(x)[1:2], model.encode(x[1:2])
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.03}[inside]
    torch.testing.assert_close(among, alone, rtol=1e-4, atol=tolerance)


@torch.no_grad()
def test_a_crop_gives_the_same_answer_as_the_whole_image_away_from_its_border() -> None:
    model, whole = autoencoder(), images(1, 1, 160, 176)
    top, left, side = 20, 32, 2 * MARGIN + 16
    part = whole[..., top : top + side, left : left + side]
    expected = model.decode(model.encode(whole))[..., top : top + side, left : left + side]
    shown = model.decode(model.encode(part))
    inner = slice(MARGIN, MARGIN + 16)
    torch.testing.assert_close(
        shown[..., inner, inner], expected[..., inner, inner], rtol=1e-4, atol=1e-5
    )
    assert float((shown - expected).abs().max()) > 1e-3, "the border does matter near itself"
    # Latents need less: only the encoder looks around.
    quarter = slice(6, side // 4 - 6)
    latents = model.encode(whole)[..., top // 4 :, left // 4 :][..., : side // 4, : side // 4]
    torch.testing.assert_close(
        model.encode(part)[..., quarter, quarter], latents[..., quarter, quarter],
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_the_divergence_of_the_unit_gaussian_is_zero() -> None:
    nothing = torch.zeros(2, 3, 4, 4)
    assert Posterior(nothing, nothing).divergence() == 0


def test_the_divergence_is_that_of_two_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(2, 3, 4, 4, generator=generator)
    log_variance = torch.randn(2, 3, 4, 4, generator=generator)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_variance / 2).exp()),
        torch.distributions.Normal(0.0, 1.0),
    ).mean()
    torch.testing.assert_close(Posterior(mean, log_variance).divergence(), exact)
    assert exact > 0


def test_samples_have_the_moments_of_the_posterior() -> None:
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    sample = Posterior(torch.tensor(3.0), torch.tensor(4.0).log()).sample(noise)
    assert float(sample.mean()) == pytest.approx(3.0, abs=0.02)
    assert float(sample.std()) == pytest.approx(2.0, abs=0.02)


@torch.no_grad()
def test_log_variances_stay_in_a_safe_range() -> None:
    model = autoencoder()
    last = model.encoder[-1]
    assert isinstance(last, nn.Conv2d)
    last.bias[3:] = torch.tensor([1e4, -1e4, 0.0])  # type: ignore[index]
    posterior = model.posterior(images(1, 1, 16, 16))
    assert float(posterior.log_variance[:, 0].max()) == 4
    assert float(posterior.log_variance[:, 1].min()) == -12


@torch.no_grad()
def test_saving_and_loading_changes_nothing_but_float16_rounding(
    tmp_path: Path, inside: torch.dtype
) -> None:
    model, x = autoencoder(), images(2, 1, 32, 32)
    model.mean += 0.3
    model.std *= 1.7
    path = tmp_path / "autoencoder.safetensors"
    save_autoencoder(model, path, {"psnr": 31.5})
    again = load_autoencoder(path)
    assert again.config == TINY
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    own, loaded = model.state_dict(), again.state_dict()
    assert own.keys() == loaded.keys()
    for key, value in own.items():
        assert loaded[key].dtype == torch.float32
        torch.testing.assert_close(loaded[key], value.half().float(), rtol=0, atol=0)
    tolerance = {torch.float32: 0.01, torch.bfloat16: 0.05}[inside]
    torch.testing.assert_close(again.encode(x), model.encode(x), rtol=0.02, atol=tolerance)
    twice = tmp_path / "twice.safetensors"
    save_autoencoder(again, twice, {"psnr": 31.5})
    for key, value in load_autoencoder(twice).state_dict().items():
        torch.testing.assert_close(value, loaded[key], rtol=0, atol=0)


def test_the_header_says_what_is_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_autoencoder(autoencoder(), path, {"psnr": 31.5})
    with safe_open(path, "np") as store:
        meta = store.metadata()
    assert meta["kind"] == "autoencoder"
    assert json.loads(meta["config"])["widths"] == [8, 16]
    assert json.loads(meta["figures"]) == {"psnr": 31.5}


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_tensors(autoencoder(), "segmentation", TINY, {}, path)
    with pytest.raises(WeightsError, match=r"other\.safetensors: This file holds 'segmentation'"):
        load_autoencoder(path)


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.safetensors"
    save_autoencoder(autoencoder(), path, {})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsError, match=r"cut\.safetensors: The weights cannot be read"):
        load_autoencoder(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        load_autoencoder(tmp_path / "none.safetensors")


@pytest.mark.parametrize("change", [{"widths": (8, 24)}, {"decoder_depth": (1, 2)}])
def test_parameters_that_do_not_fit_their_configuration_are_refused(
    tmp_path: Path, change: dict[str, tuple[int, int]]
) -> None:
    path = tmp_path / "odd.safetensors"
    save_tensors(autoencoder(), "autoencoder", dataclasses.replace(TINY, **change), {}, path)
    with pytest.raises(WeightsError, match=r"odd\.safetensors: The parameters do not fit"):
        load_autoencoder(path)
