"""One place decides the precision; networks round inside of it and give float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from calid.baselines.learned import CodeEncoder
from calid.errors import CalidWarning, UsageError
from calid.evaluation.pixel_diffusion import CODE, PixelUNet
from calid.models.autoencoder import Autoencoder, AutoencoderConfig
from calid.models.unet import UNet
from calid.runtime import (
    VARIABLE,
    choose_precision,
    choose_runtime,
    computing,
    exact,
    precision_name,
)
from calid.segmentation.segment import SegmentationConfig, SegmentationNetwork

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MAPS, IMAGES, TIMES = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 32, 32), torch.tensor([0.2, 0.7])


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes a CPU and a GPU that do or do not multiply in bfloat16; both emulate it."""
    monkeypatch.delenv(VARIABLE, raising=False)

    def be(fast: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
        emulated = lambda including_emulation=True: including_emulation or fast  # noqa: E731
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", emulated)

    return be


@pytest.mark.parametrize("device", [CPU, GPU])
def test_auto_is_what_the_hardware_multiplies_in(hardware, device):
    for fast, expected in ((False, torch.float32), (True, torch.bfloat16)):
        hardware(fast)
        assert choose_precision(device) == expected
        assert choose_precision(device, "float32") == torch.float32


def test_bfloat16_without_hardware_for_it_is_done_and_said(hardware):
    hardware(False)
    with pytest.warns(CalidWarning, match="emulated"):
        assert choose_precision(CPU, "bfloat16") == torch.bfloat16
    hardware(True)
    assert choose_precision(CPU, "bfloat16") == torch.bfloat16


@pytest.mark.parametrize("device", [CPU, GPU])
def test_the_variable_takes_the_place_of_the_hardware(hardware, monkeypatch, device):
    for fast, said, expected in ((True, "no", torch.float32), (False, "yes", torch.bfloat16)):
        hardware(fast)
        monkeypatch.setenv(VARIABLE, said)
        assert choose_precision(device) == expected
    hardware(True)
    monkeypatch.setenv(VARIABLE, "")
    assert choose_precision(device) == torch.bfloat16


def test_another_answer_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "perhaps")
    with pytest.raises(UsageError, match=r"'perhaps'.*yes or no") as caught:
        choose_precision(CPU)
    assert caught.value.subject == VARIABLE


def test_tests_of_networks_run_in_both_precisions(precision, inside):
    assert choose_runtime("cpu").precision == precision == inside
    product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == precision
    assert getattr(torch, precision_name(precision)) == precision


def test_exact_products_stand_inside_of_others():
    with computing(CPU, torch.bfloat16), exact(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def autoencoder() -> Autoencoder:
    return Autoencoder(AutoencoderConfig(3, (8, 8), (1, 1), (1, 1)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor]]] = {
    "encoder": (autoencoder, lambda network: network.encode(IMAGES)),
    "decoder": (autoencoder, lambda network: network.decode(MAPS)),
    "unet": (
        lambda: UNet(3, 3, (8, 16), 4),
        lambda network: network(MAPS, torch.ones(2, 4))[0],
    ),
    "codes": (lambda: CodeEncoder(3, (8, 16), 4), lambda network: network(MAPS)),
    "segmentation": (
        lambda: SegmentationNetwork(SegmentationConfig((8, 8), (1, 1))),
        lambda network: network(IMAGES),
    ),
    "pixels": (
        lambda: PixelUNet(4, (1, 2), attend=1),
        lambda network: network(IMAGES, TIMES, torch.ones(2, CODE)),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_and_gives_float32_and_rounds_in_between(name):
    make, call = NETWORKS[name]
    torch.manual_seed(0)
    network = make().eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.1 * torch.randn(parameter.shape)
    plain = call(network)
    with computing(CPU, torch.bfloat16):
        rounded = call(network)
    with computing(CPU, torch.float32):
        torch.testing.assert_close(call(network), plain, rtol=0, atol=0)
    assert rounded.dtype == plain.dtype == torch.float32
    difference = float((rounded - plain).square().mean().sqrt() / plain.std())
    assert 0 < difference < 0.1
