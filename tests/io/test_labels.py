"""Label files: integers on the grid of their stack, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from calid.errors import GeometryError, InputError, IntensityError
from calid.io.labels import check_same_grid, read_labels, write_labels
from calid.stack import SliceStack


@pytest.fixture
def labels(small_stack: SliceStack) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, small_stack.shape).astype("u1")


def test_labels_come_back(tmp_path: Path, small_stack: SliceStack, labels: np.ndarray) -> None:
    labels[:, 2] = 0  # a slice without a heart is nothing to warn of
    path = tmp_path / "a.nii.gz"
    write_labels(labels, small_stack, path)
    np.testing.assert_array_equal(read_labels(path, small_stack), labels, strict=True)
    image = nib.load(path)
    assert image.get_data_dtype() == np.uint8
    assert image.dataobj.slope == 1
    np.testing.assert_allclose(image.affine, small_stack.affine, atol=1e-5)


def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, small_stack: SliceStack, labels: np.ndarray
) -> None:
    path = tmp_path / "a.nii"
    with pytest.raises(GeometryError, match="do not fit the stack"):
        write_labels(labels[:, 1:], small_stack, path)
    assert not path.exists()
    write_labels(labels, small_stack, path)
    one = replace(small_stack, data=small_stack.data[:1], frame_times=small_stack.frame_times[:1])
    with pytest.raises(GeometryError, match="2 frames do not fit a stack of 1"):
        read_labels(path, one)
    fewer = replace(small_stack, data=small_stack.data[..., 1:])
    with pytest.raises(GeometryError, match="not those of"):
        read_labels(path, fewer)
    moved = small_stack.affine.copy()
    moved[0, 3] += 2
    with pytest.raises(GeometryError, match="up to 2 mm apart"):
        check_same_grid(replace(small_stack, affine=moved), small_stack, path)
    check_same_grid(small_stack, small_stack, path)


@pytest.mark.parametrize("bad", [4.0, -1.0, 0.5])
def test_values_that_are_no_labels_are_refused(
    tmp_path: Path, small_stack: SliceStack, labels: np.ndarray, bad: float
) -> None:
    data = labels.transpose(3, 2, 1, 0).astype("f4")
    data[3, 2, 1, 0] = bad
    image = nib.Nifti1Image(data, small_stack.affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(IntensityError, match=f"1 voxels are no labels.*value {bad:g}"):
        read_labels(tmp_path / "a.nii", small_stack)


def test_the_budget_holds_for_labels(
    tmp_path: Path, small_stack: SliceStack, labels: np.ndarray
) -> None:
    path = tmp_path / "a.nii"
    write_labels(labels, small_stack, path)
    with pytest.raises(InputError, match="--max-bytes"):
        read_labels(path, small_stack, max_bytes=100)


def test_labels_follow_the_spacing_of_their_stack(
    tmp_path: Path, small_stack: SliceStack, labels: np.ndarray
) -> None:
    path = tmp_path / "a.nii"
    write_labels(labels, small_stack, path)
    raw = bytearray(path.read_bytes())
    raw[88:92] = np.float32(8).tobytes()
    path.write_bytes(raw)
    np.testing.assert_array_equal(
        read_labels(path, small_stack, spacing_from="affine"), labels, strict=True
    )
    with pytest.raises(GeometryError, match="elsewhere"), pytest.warns(match="pixdim"):
        read_labels(path, small_stack)
