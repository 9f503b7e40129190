"""What SimpleITK, and with it 3D Slicer and ITK-SNAP, sees in our files."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from sampled_volume import sampled_volume
from scipy.spatial.transform import Rotation

from calid.baselines.rules import linear
from calid.io import read, write_uncertainty, write_volume
from calid.stack import Intensity, SliceStack

sitk = pytest.importorskip("SimpleITK")

LPS = np.diag([-1.0, -1.0, 1.0])
"""ITK's axes in ours: x to the left, y to the back."""

TURNS = {
    "untilted": Rotation.identity(),
    "oblique": Rotation.from_euler("xyz", (38, -25, 12), degrees=True),
    "steep": Rotation.from_euler("zyx", (110, 40, -75), degrees=True),
}


def stack_of(turn: Rotation, mirrored: bool, frames: int = 1) -> SliceStack:
    """Five slices 8 mm apart with another size and spacing along every axis."""
    data = np.random.default_rng(0).integers(0, 900, (frames, 5, 21, 34)).astype(np.int16)
    steps = np.diag([1.25, 1.75, -8.0 if mirrored else 8.0])
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() @ steps
    affine[:3, 3] = (-61.5, 20.25, 117.0)
    return SliceStack(
        data=data,
        affine=affine,
        positions=np.arange(5) * 8.0,
        thickness=8.0,
        frame_times=np.arange(frames) * 0.04,
        intensity=Intensity(0.5, 10.0),
        rank=4 if frames > 1 else 3,
    )


def dense(stack, samples=1):
    """A dense volume; made linearly, because geometry does not depend on the method."""

    def method(*given):
        return np.stack([linear(*given) + 0.01 * number for number in range(samples)])

    return sampled_volume(stack, method, 4, uncertainty=samples > 1)


@pytest.mark.parametrize("mirrored", [False, True], ids=["right-handed", "left-handed"])
@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_every_voxel_lies_where_we_say(turn, mirrored, tmp_path):
    volume = dense(stack_of(turn, mirrored))
    write_volume(volume, tmp_path / "dense.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "dense.nii.gz"))
    _, slices, height, width = volume.data.shape
    assert image.GetSize() == (width, height, slices)
    np.testing.assert_allclose(image.GetSpacing(), volume.spacing[::-1], rtol=1e-5)
    corners = [(i, j, k) for i in (0, width - 1) for j in (0, height - 1) for k in (0, slices - 1)]
    for corner in [*corners, (7, 11, 9)]:
        theirs = LPS @ np.array(image.TransformIndexToPhysicalPoint(corner))
        ours = (volume.affine @ [*corner, 1])[:3]
        np.testing.assert_allclose(theirs, ours, atol=1e-3)


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_acquired_slices_keep_their_place_in_the_patient(turn, tmp_path):
    stack = stack_of(turn, mirrored=False)
    voxels = nib.Nifti1Image(stack.data[0].transpose(2, 1, 0), stack.affine)
    nib.save(voxels, tmp_path / "stack.nii.gz")
    write_volume(dense(read(tmp_path / "stack.nii.gz")), tmp_path / "dense.nii.gz")
    sparse, fine = (sitk.ReadImage(str(tmp_path / n)) for n in ("stack.nii.gz", "dense.nii.gz"))
    for index in [(0, 0, 0), (20, 3, 2), (33, 20, 4)]:
        place = sparse.TransformIndexToPhysicalPoint(index)
        found = fine.TransformPhysicalPointToIndex(place)
        assert found == (index[0], index[1], 4 * index[2])
        assert fine[found] == sparse[index]


def test_values_are_in_image_units(tmp_path):
    stack = stack_of(TURNS["oblique"], mirrored=False)
    volume = dense(stack)
    write_volume(volume, tmp_path / "dense.nii")
    shown = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "dense.nii")))
    np.testing.assert_allclose(shown, volume.data[0] * 0.5 + 10.0)


def test_a_film_is_4d_with_its_frame_time(tmp_path):
    volume = dense(stack_of(TURNS["oblique"], mirrored=False, frames=3))
    write_volume(volume, tmp_path / "film.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "film.nii.gz"))
    assert image.GetDimension() == 4
    assert image.GetSize()[3] == 3
    assert image.GetSpacing()[3] == pytest.approx(0.04)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image)[2], volume.data[2] * 0.5 + 10.0)


def test_uncertainty_lies_on_the_volume(tmp_path):
    volume = dense(stack_of(TURNS["steep"], mirrored=True), samples=3)
    write_volume(volume, tmp_path / "dense.nii.gz")
    write_uncertainty(volume, tmp_path / "spread.nii.gz")
    dense_, spread = (sitk.ReadImage(str(tmp_path / n)) for n in ("dense.nii.gz", "spread.nii.gz"))
    assert spread.GetSize() == dense_.GetSize()
    for ours, theirs in (
        (spread.GetOrigin(), dense_.GetOrigin()),
        (spread.GetSpacing(), dense_.GetSpacing()),
        (spread.GetDirection(), dense_.GetDirection()),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(sitk.GetArrayFromImage(spread), volume.uncertainty[0], rtol=1e-6)
