"""Label files: integers on the grid of their stack, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from calid.errors import GeometryError, InputError, IntensityError, UsageError
from calid.io.labels import (
    check_same_grid,
    doubtful_order,
    missing_labels,
    parse_label_map,
    read_labels,
    write_labels,
)
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


def ventricles(frames: int = 1) -> np.ndarray:
    """Both ventricles in the package's order, shape ``(frames, 6, 40, 48)``."""
    rows, columns = np.mgrid[:40, :48]
    labels = np.zeros((frames, 6, 40, 48), np.uint8)
    labels[..., np.hypot(rows - 20, columns - 12) < 9] = 1
    labels[..., np.hypot(rows - 20, columns - 26) < 13] = 2
    labels[..., np.hypot(rows - 20, columns - 26) < 8] = 3
    return labels


ORDERS = {
    "M&Ms": ([0, 3, 2, 1], "LV=1,MYO=2,RV=3"),
    "myocardium first": ([0, 3, 1, 2], "LV=2,MYO=1,RV=3"),
    "RV second": ([0, 2, 1, 3], "LV=3,MYO=1,RV=2"),
}


@pytest.mark.parametrize("order", ORDERS)
def test_another_order_is_seen_and_the_map_told_with_numbers(order):
    values, better = ORDERS[order]
    assert doubtful_order(ventricles()) == missing_labels(ventricles()) == []
    other = np.array(values, np.uint8)[ventricles()]
    (note,) = doubtful_order(other)
    assert f"--label-map {better}" in note
    assert re.search(r"100% of the outline", note)
    known = parse_label_map(better)
    back = np.zeros_like(other)
    for value, label in known.items():
        back[other == value] = label
    np.testing.assert_array_equal(back, ventricles())


def test_a_wrong_map_is_seen_too():
    known = parse_label_map("LV=10,MYO=20,RV=30")
    swapped = np.array([0, 3, 2, 1], np.uint8)[ventricles()]
    (note,) = doubtful_order(swapped, known)
    assert "--label-map LV=30,MYO=20,RV=10" in note


@pytest.mark.parametrize(("label", "name"), [(1, "RV"), (2, "MYO"), (3, "LV")])
def test_a_label_that_is_missing_everywhere_or_between_slices_is_told(label, name):
    labels = ventricles(2)
    labels[labels == label] = 0
    assert any(f"no voxel is labelled {name} ({label})" in n for n in missing_labels(labels))
    labels = ventricles(2)
    labels[1, 3][labels[1, 3] == label] = 0
    (note,) = missing_labels(labels)
    assert note.startswith(f"{name} in slice 3 of frame 1 (counted from 0)")
    labels = ventricles()
    labels[0, [0, 5]] = 0  # beyond base and apex nothing is missing
    assert missing_labels(labels) == []


@pytest.mark.parametrize(
    "text",
    ["", "LV", "LV=1;MYO=2", "LV=1,MYO=1", "LV=1,AO=2", "MYO=2,RV=3", "LV=x", "LV=1,MYO=2,"],
)
def test_a_map_that_says_nothing_is_refused(text):
    with pytest.raises(UsageError, match="label-map"):
        parse_label_map(text)


def test_a_map_may_join_values():
    assert parse_label_map("lv=1, LV=4,MYO=2,RV=3") == {1: 3, 4: 3, 2: 2, 3: 1}
