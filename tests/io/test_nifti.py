"""What goes in comes out: values, dtype, geometry, frame time, number of axes."""

from __future__ import annotations

import gzip
import os
import re
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nifti_files import AFFINE, as_volume, save, values

from calid.errors import (
    CalidWarning,
    GeometryError,
    InputError,
    IntensityError,
    OutputError,
    ResourceError,
    UsageError,
)
from calid.geometry.affine import spacing
from calid.io import read, read_stack, write_uncertainty, write_volume
from calid.stack import Intensity, Volume

DTYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


@pytest.mark.parametrize("name", ["b.nii", "b.nii.gz", "B.NII", "B.NII.GZ", "a.b.Nii.Gz"])
def test_axes_spacing_and_times(tmp_path: Path, name: str) -> None:
    data = values((5, 4, 3, 2))
    source = save(tmp_path / f"a{'.nii.gz' if name[-1] in 'zZ' else '.nii'}", data, dt=0.03)
    stack = read(source.rename(tmp_path / name))
    assert (stack.shape, stack.rank, stack.source) == ((2, 3, 4, 5), 4, str(tmp_path / name))
    np.testing.assert_array_equal(stack.data, data.transpose(3, 2, 1, 0))
    assert stack.pixel_spacing == (1.25, 1.5)
    np.testing.assert_array_equal(stack.positions, [0, 8, 16])
    assert stack.thickness == 8
    np.testing.assert_allclose(stack.frame_times, [0, 0.03], rtol=1e-6)
    np.testing.assert_allclose(stack.affine, AFFINE)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(2, 5), st.integers(1, 3)),
    drop_time=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    order=st.sampled_from("<>"),
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    flip=st.booleans(),
    scale=st.sampled_from([(1.0, 0.0), (0.1, -3.7), (-2.0, 5.0)]),
    dt=st.floats(1e-3, 2),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_round_trip_is_exact(
    shape: tuple[int, ...],
    drop_time: bool,
    dtype: str,
    order: str,
    angles: tuple[float, ...],
    flip: bool,
    scale: tuple[float, float],
    dt: float,
    suffix: str,
) -> None:
    rng = np.random.default_rng(1)
    kind = np.dtype(dtype)
    shape = (*shape[:3], 1)[:3] if drop_time else shape
    if kind.kind == "f":
        data = rng.normal(0, 1e5, shape).astype(kind)
    else:
        limits = np.iinfo(kind)
        data = rng.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)
    data.flat[0], data.flat[-1] = 0, 1  # never constant
    turn = nib.eulerangles.euler2mat(*angles)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.4, 1.7, -9 if flip else 9])
    affine[:3, 3] = (-100, 20, 3)
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder, f"a{suffix}"), Path(folder, f"b{suffix}")
        fields = {} if drop_time else {"dt": dt}
        save(one, data.astype(kind.newbyteorder(order)), affine, endianness=order, **fields)
        _set_scale(one, *scale, order=order)
        stack = read_stack(one)
        write_volume(as_volume(stack), two)
        again = read_stack(two)
        original, written = nib.load(one), nib.load(two)
        assert written.shape == shape
        assert written.header.get_data_dtype() == kind
        assert written.header["pixdim"][4] == (np.float32(dt) if stack.n_frames > 1 else 1)
        np.testing.assert_array_equal(written.affine, original.affine)
        np.testing.assert_array_equal(written.dataobj, original.dataobj)
        np.testing.assert_allclose(written.get_qform(), written.affine, atol=2e-2)
        stored = np.asarray(written.dataobj.get_unscaled())
        assert stored.tobytes() == data.tobytes()
    assert again.data.dtype == stack.data.dtype == kind
    assert again.data.tobytes() == stack.data.tobytes()
    assert (again.rank, again.intensity) == (stack.rank, stack.intensity)
    np.testing.assert_array_equal(again.affine, stack.affine)
    np.testing.assert_array_equal(again.frame_times, stack.frame_times)


def _set_scale(path: Path, slope: float, intercept: float, order: str = "<") -> None:
    """Patch slope and intercept into the file; nibabel sets them only by rescaling."""
    raw = bytearray(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    )
    raw[112:120] = np.array([slope, intercept], f"{order}f4").tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_no_slope_is_one(tmp_path: Path, slope: float) -> None:
    path = save(tmp_path / "a.nii", values((3, 3, 2)))
    _set_scale(path, slope, 7.0)
    assert read_stack(path).intensity == Intensity(1.0, 0.0)


def test_nifti2_is_read(tmp_path: Path) -> None:
    data = values((4, 3, 2))
    stack = read_stack(save(tmp_path / "a.nii.gz", data, kind=nib.Nifti2Image))
    np.testing.assert_array_equal(stack.data[0], data.T)
    np.testing.assert_allclose(stack.affine, AFFINE)


@pytest.mark.parametrize(("time", "scale"), [("sec", 1), ("msec", 1e-3), ("usec", 1e-6), (0, 1)])
def test_time_units(tmp_path: Path, time: str | int, scale: float) -> None:
    path = save(
        tmp_path / "a.nii", values((3, 3, 2, 3)), time=time, dt=0.03 / scale, toffset=0.5 / scale
    )
    stack = read_stack(path)
    np.testing.assert_allclose(stack.frame_times, [0.5, 0.53, 0.56], rtol=1e-6)
    write_volume(as_volume(stack), tmp_path / "b.nii")
    written = nib.load(tmp_path / "b.nii").header
    assert written.get_xyzt_units() == ("mm", "sec")
    assert written["pixdim"][4] == pytest.approx(0.03)
    np.testing.assert_allclose(read_stack(tmp_path / "b.nii").frame_times, stack.frame_times)


def test_thickness_is_the_users(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values((3, 3, 2)))
    assert read_stack(path, thickness=6.0).thickness == 6.0
    with pytest.raises(UsageError, match="positive thickness"):
        read_stack(path, thickness=-1.0)


def test_fill(tmp_path: Path) -> None:
    data = values((3, 3, 2), "f4")
    data[1, 2, 0] = np.nan
    path = save(tmp_path / "a.nii", data)
    with pytest.warns(CalidWarning, match="1 voxels were NaN or infinite and are now 3"):
        stack = read_stack(path, fill=3.0)
    assert stack.data[0, 0, 2, 1] == 3.0
    for fill, rule in ((float("nan"), "not a finite number"), (1e300, "float32 cannot hold it")):
        with pytest.raises(UsageError, match=rule):
            read_stack(path, fill=fill)
    sound = save(tmp_path / "b.nii", values((3, 3, 2)))
    with pytest.raises(UsageError, match="not a finite number"):
        read_stack(sound, fill=float("inf"))


@pytest.mark.parametrize("value", [0, 7])
def test_constant_image_is_read_and_said(tmp_path: Path, value: int) -> None:
    path = save(tmp_path / "a.nii", np.full((3, 3, 2), value, "i2"))
    with pytest.warns(CalidWarning, match="all voxels have the same value"):
        assert read(path).shape == (1, 2, 3, 3)


def test_constant_slices_are_read_and_said(tmp_path: Path) -> None:
    film = values((3, 3, 4, 2))
    film[:, :, 1, 1] = film[:, :, 3, 0] = 5
    path = save(tmp_path / "a.nii", film)
    with pytest.warns(CalidWarning, match="2 of 8 images .* in frame 0, slice 3 ") as caught:
        assert read(path).shape == (2, 4, 3, 3)
    assert len(caught) == 1


def test_absurd_times_are_replaced_and_said(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values((3, 3, 2, 3)), dt=1e30, toffset=-1e30)
    with pytest.warns(CalidWarning) as caught:
        stack = read_stack(path)
    assert [str(w.message).split(": ")[1][:20] for w in caught] == [
        "the time between fra",
        "the first frame is a",
    ]
    np.testing.assert_array_equal(stack.frame_times, [0, 1, 2])
    static = save(tmp_path / "b.nii", values((3, 3, 2)), toffset=np.nan)
    np.testing.assert_array_equal(read_stack(static).frame_times, [0])


def test_missing_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii", values((30, 30, 20)))

    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("calid.io.nifti.np.empty", refuse)
    with pytest.raises(ResourceError, match=r"a\.nii.*memory for its 3\.4e-05 GiB"):
        read_stack(path)


def test_nothing_of_the_inputs_text_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    image = nib.Nifti1Image(values((3, 3, 2)), AFFINE)
    image.header["descrip"] = b"DOE^JOHN"
    image.header["aux_file"] = b"DOE^JOHN"
    image.header["intent_name"] = b"DOE^JOHN"
    image.header["db_name"] = b"DOE^JOHN"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JOHN"))
    image.to_filename(path)
    out = tmp_path / "b.nii"
    write_volume(as_volume(read_stack(path)), out)
    raw = out.read_bytes()
    assert b"DOE" not in raw
    assert b"a.nii" not in raw
    assert nib.load(out).header["descrip"].item() == b"CaLID stack"
    assert len(raw) == 352 + 3 * 3 * 2 * nib.load(path).get_data_dtype().itemsize


def test_equal_volumes_give_equal_bytes(tmp_path: Path) -> None:
    volume = as_volume(read_stack(save(tmp_path / "a.nii", values((3, 3, 2)))))
    for name in ("b.nii.gz", "c.nii.gz"):
        write_volume(volume, tmp_path / name)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


def test_uncertainty_is_float32_in_image_units(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values((3, 3, 2), "u1"))
    _set_scale(path, 0.1, 5.0)
    stack = read_stack(path)
    deviation = np.linspace(0, 1, stack.data.size, dtype="f4").reshape(stack.shape)
    write_uncertainty(as_volume(stack, uncertainty=deviation), tmp_path / "b.nii.gz")
    written = nib.load(tmp_path / "b.nii.gz")
    assert written.get_data_dtype() == np.float32
    np.testing.assert_array_equal(written.get_fdata().T, deviation[0])
    with pytest.raises(UsageError, match="no uncertainty"):
        write_uncertainty(as_volume(stack), tmp_path / "c.nii.gz")
    assert not (tmp_path / "c.nii.gz").exists()


def test_refused_volumes_leave_nothing(tmp_path: Path) -> None:
    stack = read_stack(save(tmp_path / "a.nii", values((3, 3, 2))))
    long = np.zeros((1, 2, 1, 40000), "u1")
    cases: list[tuple[Volume, str, type[Exception], str]] = [
        (as_volume(stack), "b.mha", OutputError, "wrong ending"),
        (as_volume(stack, data=stack.data.astype("f2")), "b.nii", IntensityError, "float16"),
        (as_volume(stack, data=long), "b.nii", GeometryError, "40000"),
        (as_volume(stack, affine=np.full((4, 4), np.nan)), "b.nii", GeometryError, "0 0 0 1"),
    ]
    for volume, name, error, rule in cases:
        with pytest.raises(error, match=rule):
            write_volume(volume, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii"]


@pytest.mark.real_data
@pytest.mark.skipif("CALID_DATA" not in os.environ, reason="CALID_DATA is not set")
def test_acdc_originals_take_pixdim() -> None:
    paths = sorted(Path(os.environ["CALID_DATA"], "raw_full_fov").glob("*.nii.gz"))
    assert paths
    for path in paths:
        with pytest.warns(CalidWarning) as caught:
            stack = read(path)
        assert any(re.search(r"1 x 1 x 1 mm.*10 mm", str(w.message)) for w in caught)
        np.testing.assert_allclose(spacing(stack.affine), nib.load(path).header["pixdim"][1:4])
        assert stack.gaps[0] == 10.0


@pytest.mark.parametrize(("shape", "field"), [((4, 5, 3, 1, 12), 5), ((4, 5, 3, 1, 1, 12), 4)])
def test_a_film_whose_time_is_a_later_axis_is_read(shape, field, tmp_path):
    image = nib.Nifti1Image(values(shape), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4 if field != 4 else 6] = 7.0
    image.header["pixdim"][field] = 0.05
    nib.save(image, tmp_path / "a.nii")
    with pytest.warns(CalidWarning, match=f"time is axis {len(shape)}"):
        stack = read_stack(tmp_path / "a.nii")
    assert stack.shape == (12, 3, 5, 4)
    assert np.diff(stack.frame_times) == pytest.approx(0.05)
    write_volume(as_volume(stack), tmp_path / "b.nii")
    assert nib.load(tmp_path / "b.nii").shape == (4, 5, 3, 12)


@pytest.mark.parametrize("name", ["a.hdr", "a.img", "A.HDR", "a.img.gz"])
def test_pairs_of_files_are_refused_with_their_name(name, tmp_path):
    (tmp_path / name).write_bytes(bytes(352))
    with pytest.raises(InputError, match="another file"):
        read_stack(tmp_path / name)


@pytest.mark.parametrize("tail", [b"trailing", b"\r\n", bytes(200) + b"x"])
def test_bytes_after_a_compressed_file_are_one_clear_error(tail, tmp_path):
    save(tmp_path / "a.nii", values((4, 4, 2)))
    content = gzip.compress((tmp_path / "a.nii").read_bytes())
    (tmp_path / "b.nii.gz").write_bytes(content + tail)
    with pytest.raises(InputError, match="bytes follow it"):
        read_stack(tmp_path / "b.nii.gz")
    (tmp_path / "c.nii.gz").write_bytes(content + bytes(300))
    assert read_stack(tmp_path / "c.nii.gz").shape == (1, 2, 4, 4)
