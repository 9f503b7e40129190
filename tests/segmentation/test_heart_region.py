"""Finding the heart with a network that labels by brightness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calid.geometry.affine import from_spacing
from calid.runtime import choose_runtime
from calid.segmentation.region import heart_region
from calid.segmentation.segment import Segmenter
from calid.stack import SliceStack


class Bright(nn.Module):
    """What is bright is left ventricle."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([torch.full_like(images, 0.7), images * 0, images * 0, images], 1)


@pytest.fixture
def segmenter() -> Segmenter:
    return Segmenter(Bright(), choose_runtime("cpu"))  # type: ignore[arg-type]


def stack_of(data: np.ndarray) -> SliceStack:
    return SliceStack(
        data=data.astype(np.int16),
        affine=from_spacing((1.5, 1.5, 10.0)),
        positions=10.0 * np.arange(data.shape[1]),
        thickness=8.0,
        frame_times=np.arange(len(data), dtype=float),
        source="made up",
        rank=4 if len(data) > 1 else 3,
    )


def dim(frames: int = 1) -> np.ndarray:
    data = np.zeros((frames, 3, 160, 192))
    data[..., ::9, ::9] = 100  # so that the window is the same without a heart
    return data


def test_the_box_is_about_the_largest_piece_in_all_slices_and_frames(segmenter):
    data = dim(frames=6)
    data[:, 0, 60:90, 70:100] = 100
    data[:, 1, 60:90, 64:100] = 100
    data[4, 1, 60:98, 70:100] = 100  # larger in one of the frames that are looked at
    data[:, 2, 5:12, 180:190] = 100  # something bright elsewhere
    region = heart_region(stack_of(data), segmenter)
    assert region is not None
    assert region.rows[0] <= 60 - 5 < 98 + 5 <= region.rows[1]
    assert region.columns[0] <= 64 - 5 < 100 + 5 <= region.columns[1]
    assert region.columns[1] < 170
    assert region.share < 0.5


def test_nothing_or_next_to_nothing_is_no_heart(segmenter):
    data = dim()
    assert heart_region(stack_of(data), segmenter) is None
    data[0, 1, 60:70, 60:70] = 100  # 225 square millimetres
    assert heart_region(stack_of(data), segmenter) is None


def test_a_box_that_saves_nothing_is_none(segmenter):
    data = dim()
    data[0, :, 20:140, 20:170] = 100
    assert heart_region(stack_of(data), segmenter) is None
