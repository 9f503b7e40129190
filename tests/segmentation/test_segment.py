"""The way from slices to labels, with networks that were never trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calid.baselines.rules import nearest
from calid.errors import UsageError, WeightsError
from calid.geometry.affine import from_spacing
from calid.inference.densify import densify
from calid.models.store import save_tensors
from calid.runtime import choose_runtime
from calid.segmentation import segment
from calid.segmentation.segment import (
    KIND,
    SegmentationConfig,
    SegmentationNetwork,
    Segmenter,
    keep_largest,
    load_segmentation,
    load_segmenter,
    turn,
    turn_back,
)
from calid.stack import SliceStack

pytestmark = pytest.mark.usefixtures("precision")

TINY = SegmentationConfig(widths=(8, 8, 8, 8), depth=(1, 1, 1, 1))
CPU = torch.device("cpu")


class Bands(nn.Module):
    """Labels by brightness: a quarter of the window each."""

    def forward(self, images: Tensor) -> Tensor:
        centres = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0])[:, None, None]
        return -200 * (images.float() - centres).square()


@pytest.fixture
def tiny() -> Segmenter:
    torch.manual_seed(0)
    network = SegmentationNetwork(TINY).eval()
    # Without this all pixels have nearly the same scores, and one label takes all.
    nn.init.normal_(network.exit[-1].weight, std=2.0)
    return Segmenter(network, choose_runtime("cpu"))


@pytest.fixture
def bands() -> Segmenter:
    return Segmenter(Bands(), choose_runtime("cpu"))  # type: ignore[arg-type]


def painted(frames: int = 1, spacing: tuple[float, float, float] = (1.5, 1.5, 10.0)) -> SliceStack:
    """Stacks whose brightness is 100 times the label; the heart moves from frame to frame."""
    data = np.zeros((frames, 4, 50, 44), np.int16)
    for frame in range(frames):
        data[frame, :, 10 + frame : 34, 8 + frame : 30] = 200
        data[frame, :, 16 + frame : 28, 12 + frame : 24] = 300
        data[frame, :, 10 + frame : 34, 30:40] = 100
    return SliceStack(
        data=data,
        affine=from_spacing(spacing),
        positions=np.arange(4) * spacing[2],
        thickness=8.0,
        frame_times=np.arange(frames) * 0.04,
        rank=4,
    )


@pytest.mark.parametrize("shape", [(3, 33, 41), (1, 16, 16), (9, 7, 64), (2, 1, 5)])
@pytest.mark.parametrize("spacing", [(1.5, 1.5), (1.37, 1.9), (3.0, 0.8)])
def test_any_grid_gets_labels_of_its_own_shape(tiny, shape, spacing):
    images = np.random.default_rng(0).random(shape, np.float32)
    labels = tiny.label_slices(images, spacing)
    assert labels.shape == shape
    assert labels.dtype == np.uint8
    assert labels.max() <= 3


def test_slices_are_labelled_each_on_its_own(tiny):
    images = np.random.default_rng(0).random((11, 30, 34), np.float32)
    together = tiny.label_slices(images, (1.4, 1.6))
    assert len(np.unique(together)) > 1
    alone = np.concatenate([tiny.label_slices(image[None], (1.4, 1.6)) for image in images])
    # Sums of another order may flip a pixel that is undecided.
    assert (together == alone).mean() > 0.999


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 10.0), (1.2, 2.0, 8.0)])
def test_labels_stand_where_the_image_shows_them(bands, spacing):
    stack = painted(spacing=spacing)
    labels = bands.label_volume(stack)
    truth = stack.data // 100
    # Between 0 and 2 a resampled edge looks like 1: leave the edges of another grid out.
    inside = np.ones(truth.shape, bool)
    if spacing[0] != 1.5:
        for axis in (2, 3):
            for shift in (-2, -1, 1, 2):
                inside &= truth == np.roll(truth, shift, axis)
    np.testing.assert_array_equal(labels[inside], truth[inside])


def test_frames_keep_their_order_and_progress_counts_them(bands):
    stack, seen = painted(frames=3), []
    labels = bands.label_volume(stack, seen.append)
    assert seen == [1, 2, 3]
    np.testing.assert_array_equal(labels, stack.data // 100)
    turned = bands.label_volume(replace(stack, data=stack.data[::-1].copy()))
    np.testing.assert_array_equal(turned, labels[::-1])


def test_a_reconstruction_is_labelled_like_a_stack(bands):
    stack = painted()
    repeat = lambda images, places, targets, spacing: images[None, :1].repeat(len(targets), 1)  # noqa: E731
    volume = densify(stack, repeat, 3)
    labels = bands.label_volume(volume)
    assert labels.shape == volume.data.shape
    np.testing.assert_array_equal(labels[:, ::3], stack.data // 100)


def test_a_constant_stack_is_labelled_without_complaint(tiny, small_stack):
    labels = tiny.label_volume(replace(small_stack, data=np.full_like(small_stack.data, 7)))
    assert labels.shape == small_stack.shape


def test_only_the_largest_piece_is_kept_whatever_its_labels():
    labels = np.zeros((3, 20, 20), np.uint8)
    labels[0, 2:8, 2:8] = 2
    labels[0, 4:6, 4:6] = 3
    labels[1, 8, 8] = 1  # touches by a corner, in the next slice
    kept = labels.copy()
    labels[:, 15:18, 15:18] = 1  # 27 pixels against 37
    np.testing.assert_array_equal(keep_largest(labels), kept)
    assert keep_largest(labels).dtype == np.uint8


@pytest.mark.parametrize("fill", [0, 2])
def test_no_piece_or_a_single_one_stays_as_it_is(fill):
    labels = np.full((2, 4, 4), fill, np.uint8)
    np.testing.assert_array_equal(keep_largest(labels), labels)


def test_frames_are_cleaned_apart_from_each_other(bands):
    stack = painted(frames=2)
    stack.data[1, 0, 44:48, 2:6] = 300
    labels = bands.label_volume(stack)
    np.testing.assert_array_equal(labels[0], stack.data[0] // 100)
    assert not labels[1, 0, 44:48, 2:6].any()


def test_saved_weights_give_the_same_labels(tiny, tmp_path, monkeypatch):
    path = tmp_path / "segmentation.safetensors"
    save_tensors(tiny.network.half().float(), KIND, TINY, {"dice": 0.5}, path)
    assert load_segmentation(path).config == TINY
    monkeypatch.setattr(segment, "weights_path", lambda name: tmp_path / f"{name}.safetensors")
    images = np.random.default_rng(0).random((2, 32, 32), np.float32)
    loaded = load_segmenter("cpu").label_slices(images, (1.5, 1.5))
    np.testing.assert_array_equal(loaded, tiny.label_slices(images, (1.5, 1.5)))


def test_an_unknown_device_or_damaged_weights_are_typed_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "weights_path", lambda name: tmp_path / "bad.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    with pytest.raises(WeightsError):
        load_segmenter("cpu")
    with pytest.raises(UsageError):
        load_segmenter("tpu")


def test_of_a_volume_only_the_region_is_looked_at(bands: Segmenter) -> None:
    volume = densify(painted(), nearest, 2)
    whole = bands.label_volume(volume)
    rows, columns = (8, 30), (10, 28)
    part = bands.label_volume(replace(volume, region=(rows, columns)))
    inside = np.zeros(whole.shape, bool)
    inside[:, :, slice(*rows), slice(*columns)] = True
    assert (part[~inside] == 0).all()
    assert (whole[~inside] > 0).any()
    rim = 2  # pixels of another grid, at the border
    core = (slice(None), slice(None), slice(8 + rim, 30 - rim), slice(10 + rim, 28 - rim))
    np.testing.assert_array_equal(part[core], whole[core])


def test_turning_back_undoes_turning():
    x = torch.arange(12.0).view(1, 3, 4)
    turned = [turn(x, n) for n in range(8)]
    assert len({tuple(t.flatten().tolist()) + tuple(t.shape) for t in turned}) == 8
    for n, t in enumerate(turned):
        torch.testing.assert_close(turn_back(t, n), x)
