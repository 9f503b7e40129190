"""Inputs that are odd but sound: read for what they are, and nothing about them is lost."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from command_line import run
from nifti_files import save, values
from sampled_volume import sampled_volume

from calid.baselines.rules import linear
from calid.errors import CalidWarning, WeightsError
from calid.geometry.affine import spacing
from calid.inference.densify import densify
from calid.io import read, write_uncertainty, write_volume
from calid.stack import Volume

# Dozens of exams, each read from disk by a whole command.
pytestmark = pytest.mark.slow

STEPS = (1.5, 1.25, 8.0)


def voxels(*shape: int, dtype: str = "i2") -> np.ndarray:
    return values(shape, dtype, 400)


def dense_of(path: Path, factor: int = 2) -> Volume:
    """The dense volume of a file by linear interpolation."""
    return densify(read(path), linear, factor)


def reconstruct(*arguments: object) -> int:
    return run("reconstruct", *arguments, "--device", "cpu")


def scanner_values(image: Any) -> dict[tuple[float, ...], float]:
    """Every voxel of an image by its millimetres."""
    data = np.asarray(image.dataobj)
    places = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1)
    points = nib.affines.apply_affine(image.affine, places).round(3) + 0.0
    return {tuple(p): float(v) for p, v in zip(points.reshape(-1, 3), data.ravel(), strict=True)}


@pytest.mark.parametrize(
    "mirror", [np.diag([1.0, 1, -1, 1]), np.diag([-1.0, 1, 1, 1]), np.diag([1.0, -1, -1, 1])]
)
def test_flipped_and_left_handed_stacks_are_the_same_heart(
    tmp_path: Path, mirror: np.ndarray
) -> None:
    data = voxels(6, 5, 4)
    affine = np.diag([-1.5, -1.25, 8.0, 1.0])
    affine[:3, 3] = (30, 20, -10)
    flips = [axis for axis in range(3) if mirror[axis, axis] < 0]
    corner = np.array([(n - 1) if a in flips else 0 for a, n in enumerate(data.shape)])
    flipped = affine @ mirror
    flipped[:3, 3] = affine[:3, :3] @ corner + affine[:3, 3]
    save(tmp_path / "a.nii", data, affine)
    save(tmp_path / "b.nii", np.flip(data, flips), flipped)
    for name in "ab":
        write_volume(dense_of(tmp_path / f"{name}.nii"), tmp_path / f"{name}-dense.nii")
    one, two = (scanner_values(nib.load(tmp_path / f"{n}-dense.nii")) for n in "ab")
    assert one.keys() == two.keys()
    assert max(abs(one[place] - two[place]) for place in one) <= 1  # halves round either way


def test_microns_are_converted(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", voxels(6, 5, 4), np.diag([-1500.0, -1250, 8000, 1]))
    raw = bytearray(path.read_bytes())
    raw[123] = 3 + 8  # micron and second
    path.write_bytes(raw)
    stack = read(path)
    assert spacing(stack.affine) == pytest.approx(STEPS)
    write_volume(dense_of(path), tmp_path / "b.nii")
    header = nib.load(tmp_path / "b.nii").header
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_zooms(), (1.5, 1.25, 4.0), rtol=1e-6)


def test_unknown_units_are_millimetres_if_a_heart_fits_and_said_if_not(tmp_path: Path) -> None:
    fits = save(tmp_path / "a.nii", voxels(6, 5, 4), xyzt_units=0)
    assert spacing(read(fits).affine) == pytest.approx(STEPS)
    large = save(
        tmp_path / "b.nii", voxels(6, 5, 4), np.diag([-1500.0, -1250, 8000, 1]), xyzt_units=0
    )
    with pytest.warns(CalidWarning, match="implausible.*units"):
        read(large)


@pytest.mark.slow
def test_a_field_of_view_in_wrong_units_is_refused_before_it_takes_all_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "a.nii", voxels(6, 5, 4), np.diag([-1500.0, -1250, 8000, 1]))
    assert reconstruct(path, tmp_path / "b.nii", "--factor", 2) == 4
    shown = capsys.readouterr().err
    assert "implausible" in shown
    assert "sides 1500 mm or less" in shown
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii"]


@pytest.mark.parametrize("others", [(), (1,), (1, 1), (2, 1), (1, 1, 1, 1)])
def test_a_single_frame_and_axes_of_length_one_are_kept(
    tmp_path: Path, others: tuple[int, ...]
) -> None:
    shape = (6, 5, 4, *others)
    # nibabel drops trailing ones when it saves five axes, so set them in the header.
    path = save(tmp_path / "a.nii", voxels(*shape))
    raw = bytearray(path.read_bytes())
    raw[40:56] = np.array([len(shape), *shape, 1, 1, 1, 1][:8], "<i2").tobytes()
    raw[92:96] = np.float32(0.04).tobytes()
    path.write_bytes(raw)
    assert read(path).rank == len(shape)
    write_volume(dense_of(path), tmp_path / "b.nii")
    assert nib.load(tmp_path / "b.nii").shape == (6, 5, 7, *others)


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, 250])
@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_a_constant_volume_stays_what_it_is(tmp_path: Path, value: int, dtype: str) -> None:
    path = save(tmp_path / "a.nii", np.full((33, 20, 3), value, dtype))
    out = tmp_path / "b.nii"
    assert reconstruct(path, out, "--factor", 2) == 0
    np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), value)


def test_a_constant_slice_is_said_and_gives_finite_slices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = voxels(33, 20, 3, dtype="f4")
    data[..., 1] = 0
    out = tmp_path / "b.nii"
    assert reconstruct(save(tmp_path / "a.nii", data), out, "--factor", 2) == 0
    assert "1 of 3 images have the same value" in capsys.readouterr().err
    dense = np.asarray(nib.load(out).dataobj)
    np.testing.assert_array_equal(dense[..., ::2], data)
    assert np.isfinite(dense).all()
    assert dense.min() >= data.min()
    assert dense.max() <= data.max()


def test_uint16_above_32767_with_slope_and_intercept_comes_back_exactly(tmp_path: Path) -> None:
    data = (voxels(6, 5, 4, dtype="u2") * 160).astype("u2")
    assert data.max() > 60000
    path = save(tmp_path / "a.nii", data)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.25, -7.5], "<f4").tobytes()
    path.write_bytes(raw)
    write_volume(dense_of(path), tmp_path / "b.nii.gz")
    before, after = nib.load(path), nib.load(tmp_path / "b.nii.gz")
    assert after.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(
        np.asarray(after.dataobj.get_unscaled())[..., ::2], data, strict=True
    )
    np.testing.assert_array_equal(np.asarray(after.dataobj)[..., ::2], np.asarray(before.dataobj))


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8"])
def test_the_largest_integers_do_not_wrap_round(tmp_path: Path, dtype: str) -> None:
    limits = np.iinfo(dtype)
    data = np.full((6, 5, 3), limits.max, dtype)
    data[:3] = limits.min
    dense = dense_of(save(tmp_path / "a.nii", data))
    np.testing.assert_array_equal(dense.data[0, ::2], data.T)
    assert (dense.data[0, 1, :, 3:] > limits.max // 2).all()
    assert (dense.data[0, 1, :, :3] < limits.max // 2).all()


@pytest.mark.parametrize(
    "data",
    [
        np.arange(2**53, 2**53 + 90).reshape(6, 5, 3),
        np.full((6, 5, 3), 2e30, "f4"),
        np.where(np.arange(90).reshape(6, 5, 3) == 3, 2**53 + 1, 2**53),
    ],
    ids=["wide integers", "constant", "alike in double precision"],
)
def test_values_beyond_all_precision_stay_within_their_range(
    tmp_path: Path, data: np.ndarray
) -> None:
    path = save(tmp_path / "a.nii", data)
    with warnings.catch_warnings():
        for words in ("the same value", "whole numbers below"):
            warnings.filterwarnings("ignore", f".*{words}", CalidWarning)
        dense = dense_of(path)
    np.testing.assert_array_equal(dense.data[0, ::2], data.T)
    assert dense.data.min() == data.min()
    assert dense.data.max() == data.max()


def test_small_contrast_on_a_large_offset_is_kept(tmp_path: Path) -> None:
    data = (voxels(6, 5, 3, dtype="i4") + 2_000_000_000).astype("i4")
    dense = dense_of(save(tmp_path / "a.nii", data))
    middle = data[..., :2].astype("f8").mean(-1).T
    assert np.abs(dense.data[0, 1] - middle).max() <= 3  # beyond the 99.5th percentile it is cut


def test_an_int16_header_is_not_used_for_floats(tmp_path: Path) -> None:
    stack = read(save(tmp_path / "a.nii", voxels(6, 5, 4)))
    pair = sampled_volume(stack, lambda *a: np.stack([linear(*a), 0.9 * linear(*a)]), 2)
    write_volume(pair, tmp_path / "b.nii")
    write_uncertainty(pair, tmp_path / "c.nii")
    assert nib.load(tmp_path / "b.nii").get_data_dtype() == np.int16
    spread = nib.load(tmp_path / "c.nii")
    assert spread.get_data_dtype() == np.float32
    found = spread.get_fdata()[..., 1]
    assert (found % 1 != 0).any(), "fractions are not rounded to the input's integers"


@pytest.mark.parametrize("step", [0.03, 0.0457])
def test_frame_time_is_kept(tmp_path: Path, step: float) -> None:
    path = save(tmp_path / "a.nii", voxels(6, 5, 3, 4), dt=step, toffset=0.012)
    write_volume(dense_of(path), tmp_path / "b.nii")
    header = nib.load(tmp_path / "b.nii").header
    assert header["pixdim"][4] == np.float32(step)
    assert header["toffset"] == np.float32(0.012)
    assert header.get_xyzt_units() == ("mm", "sec")


def test_odd_sizes_non_square_pixels_and_oblique_planes_come_out_as_they_are(
    tmp_path: Path,
) -> None:
    data = voxels(37, 23, 3, dtype="u1")
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(0.4, -0.7, 1.1) @ np.diag([1.37, 0.91, 9.3])
    affine[:3, 3] = (-42, 17, 88)
    path, out = save(tmp_path / "a.nii", data, affine), tmp_path / "b.nii"
    assert reconstruct(path, out, "--factor", 2) == 0
    dense = nib.load(out)
    assert dense.shape == (37, 23, 5)
    np.testing.assert_array_equal(np.asarray(dense.dataobj)[..., ::2], data)
    np.testing.assert_allclose(dense.affine[:, [0, 1, 3]], affine[:, [0, 1, 3]], atol=1e-5)
    np.testing.assert_allclose(dense.affine[:, 2], affine[:, 2] / 2, atol=1e-5)


@pytest.mark.parametrize(("choice", "expected"), [("pixdim", 5.0), ("affine", 0.5)])
def test_spacing_from_decides_where_the_header_contradicts_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: str, expected: float
) -> None:
    path = save(tmp_path / "a.nii", voxels(33, 20, 3), np.diag([-1.5, -1.5, 1.0, 1]))
    raw = bytearray(path.read_bytes())
    raw[88:92] = np.float32(10).tobytes()  # pixdim says 10 mm, the sform 1 mm
    raw[252:254] = bytes(2)
    path.write_bytes(raw)
    out = tmp_path / "b.nii"
    assert reconstruct(path, out, "--factor", 2, "--spacing-from", choice) == 0
    assert "warning" not in capsys.readouterr().err
    assert nib.load(out).header.get_zooms()[2] == pytest.approx(expected)
    assert json.loads((tmp_path / "b.json").read_text())["reading"]["spacing_from"] == choice


@pytest.mark.slow
def test_fill_is_for_voxels_that_are_not_finite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = voxels(33, 20, 3, dtype="f4")
    data[4, 5, 1], data[0, 0, 0] = np.nan, np.inf
    path, out = save(tmp_path / "a.nii", data), tmp_path / "b.nii"
    assert reconstruct(path, out, "--factor", 2) == 5
    assert "--fill" in capsys.readouterr().err
    assert not out.exists()
    assert reconstruct(path, out, "--factor", 2, "--fill", 3.5, "--thickness", 6) == 0
    assert "2 voxels were NaN or infinite and are now 3.5" in capsys.readouterr().err
    dense = np.asarray(nib.load(out).dataobj)
    assert dense[4, 5, 2] == dense[0, 0, 0] == 3.5
    record = json.loads((tmp_path / "b.json").read_text())
    assert record["reading"]["fill"] == 3.5
    assert record["input"]["slice_thickness_mm"] == 6


@pytest.mark.parametrize("verb", ["reconstruct", "segment", "measure", "inspect"])
def test_reading_options_reach_every_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    path = save(tmp_path / "a.nii", voxels(6, 5, 4))
    outputs = [] if verb in ("measure", "inspect") else [str(tmp_path / "b.nii")]
    for option, value, code in (
        ("--max-bytes", "100", 3),
        ("--max-bytes", "0", 2),
        ("--thickness", "-1", 2),
        ("--spacing-from", "sform", 2),
    ):
        assert run(verb, path, *outputs, option, value) == code
        assert option in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii"]


@pytest.mark.parametrize("value", ["inf", "nan", "1e30", "-1"])
def test_an_impossible_dial_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    path = save(tmp_path / "a.nii", voxels(6, 5, 4))
    assert reconstruct(path, tmp_path / "b.nii", "--dial", value) == 2
    assert "--dial" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii"]


def test_answers_that_are_not_numbers_are_never_written(tmp_path: Path) -> None:
    stack = read(save(tmp_path / "a.nii", voxels(6, 5, 4)))

    def broken(*args: Any) -> np.ndarray:
        answer = linear(*args)[None]
        answer[0, 1, 2, 3] = np.nan
        return answer

    with pytest.raises(WeightsError, match="not numbers"):
        densify(stack, broken, 2)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--factor", 10**9), "more than 4096 slices"),
        (("--spacing", 1e-320), "Give 0.1 mm or more"),
    ],
)
def test_a_volume_of_countless_slices_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, float], said: str
) -> None:
    path = save(tmp_path / "a.nii", voxels(6, 5, 4))
    assert reconstruct(path, tmp_path / "b.nii", *option) == 2
    assert said in capsys.readouterr().err


def test_names_with_brackets_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a[/b].nii", "[red]a.nii"):
        assert reconstruct(name, tmp_path / "b.nii") == 3
        assert f"error {name}" in capsys.readouterr().err


def test_names_that_are_too_long_are_typed_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = "a" * 5000 + ".nii"
    assert reconstruct(endless, tmp_path / "b.nii") == 3
    assert reconstruct(save(tmp_path / "a.nii", voxels(6, 5, 4)), tmp_path / endless) == 6
    assert capsys.readouterr().err.count("File name too long") == 2
