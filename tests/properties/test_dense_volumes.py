"""What holds for every stack, whatever its shape, type, orientation and spacing.

Stacks are drawn as files, so that the way in and the way out are part of what is tested.
"""

from __future__ import annotations

import itertools
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import reconstructed

from calid.baselines.rules import linear
from calid.errors import CalidWarning, GeometryError
from calid.geometry.affine import spacing
from calid.inference.densify import choose_factor, densify
from calid.inference.model import Model, load_model
from calid.io import read, write_volume
from calid.stack import SliceStack, Volume

NEAR_MM = 1e-3
"""Millimetres within which a written file has every voxel where it was."""

DTYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")


@dataclass(frozen=True)
class Scan:
    """A NIfTI file to be: stored voxels in NIfTI's order and raw header fields."""

    data: np.ndarray
    affine: np.ndarray
    slope: tuple[float, float]
    frame_time: float
    forms: tuple[int, int]  # sform and qform codes
    order: str
    suffix: str

    @property
    def pixdim(self) -> np.ndarray:
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def save(self, folder: str) -> Path:
        """Write the file; every field is as it stands here, whatever nibabel thinks of it."""
        header: Any = nib.Nifti1Header(endianness=self.order)
        header.set_data_dtype(self.data.dtype)
        header.set_data_shape(self.data.shape)
        header.set_qform(self.affine, int(self.forms[1]))
        header.set_sform(self.affine, int(self.forms[0]))
        header["pixdim"][1:4] = self.pixdim
        if self.data.ndim > 3:
            header["pixdim"][4] = self.frame_time
        header.set_xyzt_units("mm", "sec")
        header["scl_slope"], header["scl_inter"] = self.slope
        header["vox_offset"] = 352
        raw = self.data.astype(self.data.dtype.newbyteorder(self.order)).tobytes("F")
        path = Path(folder, f"in{self.suffix}")
        opener: Any = nib.openers.Opener
        with opener(str(path), "wb") as file:
            file.write(header.binaryblock + bytes(4) + raw)
        return path


def sizes(least: int, most: int) -> Any:
    return st.integers(least, most)


@st.composite
def scans(draw: Any, side: int = 9, slices: int = 5, dtypes: tuple[str, ...] = DTYPES) -> Scan:
    shape = (draw(sizes(1, side)), draw(sizes(1, side)), draw(sizes(2, slices)))
    shape += draw(st.sampled_from([(), (1,), (2,), (3,), (1, 1), (2, 1, 1)]))
    kind = np.dtype(draw(st.sampled_from(dtypes)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind.kind == "f":
        data = rng.normal(0, 1, shape) * draw(st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30]))
        data = (data + draw(st.sampled_from([0.0, 1e3]))).astype(kind)
    else:
        limits = np.iinfo(kind)
        low, high = sorted(draw(st.tuples(*[st.integers(limits.min, limits.max)] * 2)))
        data = rng.integers(low, high, shape, dtype=kind, endpoint=True)
    steps = np.array(draw(st.tuples(*[st.floats(0.3, 3)] * 2, st.floats(2, 20))))
    signs = draw(st.sampled_from(list(itertools.product([1, -1], repeat=3))))
    axes = draw(st.sampled_from(list(itertools.permutations(range(3)))))
    turn: Any = nib.eulerangles.euler2mat
    tilt = turn(*draw(st.tuples(*[st.sampled_from([0.0, 0.2, -1.0, 3.0])] * 3)))
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.eye(3)[:, list(axes)] * signs * steps
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Scan(
        data,
        affine,
        draw(st.sampled_from([(1.0, 0.0), (0.0, 0.0), (0.25, -3.0), (-2.0, 5.0)])),
        draw(st.floats(1e-3, 2)),
        draw(st.sampled_from([(1, 1), (1, 0), (0, 1), (2, 1), (4, 0)])),
        draw(st.sampled_from("<>")),
        draw(st.sampled_from([".nii", ".nii.gz"])),
    )


def quiet_read(path: Path, **options: Any) -> SliceStack:
    """Read without the words about images and pixels that happen to look odd."""
    with warnings.catch_warnings():
        for words in ("the same value", "whole numbers below", "If slices lie along"):
            warnings.filterwarnings("ignore", f".*{words}", CalidWarning)
        return read(path, **options)


def places(affine: np.ndarray, shape: tuple[int, ...], every: int = 1) -> np.ndarray:
    """Millimetres of the corners of every acquired slice."""
    corners = itertools.product((0, shape[3] - 1), (0, shape[2] - 1), range(0, shape[1], every))
    return nib.affines.apply_affine(affine, np.array(list(corners)))


def check(stack: SliceStack, dense: Volume, factor: int) -> None:
    """What is promised of every dense volume."""
    assert dense.data.shape == (
        stack.n_frames,
        (stack.n_slices - 1) * factor + 1,
        *stack.shape[2:],
    )
    assert dense.data.dtype == stack.data.dtype
    assert dense.data[:, dense.acquired].tobytes() == stack.data.tobytes()
    assert dense.positions[dense.acquired].tolist() == stack.positions.tolist()
    assert np.flatnonzero(dense.acquired).tolist() == list(range(0, len(dense.positions), factor))
    assert np.isfinite(dense.data.astype("f8")).all()
    assert dense.data.min() >= stack.data.min()
    assert dense.data.max() <= stack.data.max()
    np.testing.assert_allclose(
        places(dense.affine, dense.data.shape, factor),
        places(stack.affine, stack.shape),
        atol=1e-9,
    )
    assert (dense.rank, dense.intensity) == (stack.rank, stack.intensity)
    assert dense.frame_times.tolist() == stack.frame_times.tolist()


def check_written(scan: Scan, stack: SliceStack, dense: Volume, factor: int, path: Path) -> None:
    """What is promised of the file, as another library reads it."""
    image: Any = nib.load(path)
    shape = list(scan.data.shape)
    shape[2] = (shape[2] - 1) * factor + 1
    assert list(image.shape) == shape
    assert image.get_data_dtype() == scan.data.dtype
    stored = np.asarray(image.dataobj.get_unscaled())
    assert stored[:, :, ::factor].tobytes() == scan.data.tobytes()
    # The file's third column is stored in single precision and carries to the last slice.
    np.testing.assert_allclose(
        places(image.affine, dense.data.shape, factor),
        places(stack.affine, stack.shape),
        atol=NEAR_MM,
    )
    np.testing.assert_allclose(
        image.header.get_zooms()[:3], scan.pixdim / [1, 1, factor], rtol=1e-5
    )
    again = quiet_read(path)
    np.testing.assert_allclose(again.affine, dense.affine, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(again.frame_times, stack.frame_times, rtol=1e-6)
    assert again.data.tobytes() == dense.data.tobytes()
    assert (again.intensity, again.rank) == (stack.intensity, stack.rank)


@pytest.mark.slow
@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(scan=scans(), factor=st.integers(1, 7))
def test_acquired_slices_geometry_and_range_survive(scan: Scan, factor: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stack = quiet_read(scan.save(folder))
        # A qform's quaternion is in single precision: good for some 3e-4 radians.
        fuzzy = 0.0 if scan.forms[0] else 1e-3 * scan.pixdim.max()
        np.testing.assert_allclose(stack.affine, scan.affine, rtol=1e-6, atol=1e-5 + fuzzy)
        dense = densify(stack, linear, factor)
        check(stack, dense, factor)
        out = Path(folder, f"out{scan.suffix}")
        write_volume(dense, out)
        check_written(scan, stack, dense, factor, out)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(device="cpu")


@pytest.mark.slow
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(scan=scans(side=40, slices=3, dtypes=("u1", "i2", "u2", "f4")))
def test_the_network_keeps_the_same_promises(model: Model, scan: Scan) -> None:
    scan = replace(scan, data=scan.data[..., :1] if scan.data.ndim > 3 else scan.data)
    with tempfile.TemporaryDirectory() as folder:
        stack = quiet_read(scan.save(folder))
        dense = reconstructed(model, stack, factor=2)
        check(stack, dense, 2)
        out = Path(folder, f"out{scan.suffix}")
        write_volume(dense, out)
        check_written(scan, stack, dense, 2, out)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    scan=scans(slices=3, dtypes=("i2",)),
    stretch=st.tuples(*[st.sampled_from([0.5, 0.98, 1.0, 1.02, 3.0])] * 3),
    choice=st.sampled_from(["auto", "pixdim", "affine"]),
)
def test_where_sform_and_pixdim_disagree_the_chosen_one_gives_the_spacing(
    scan: Scan, stretch: tuple[float, ...], choice: Any
) -> None:
    scan = replace(scan, forms=(1, 0), order="<", suffix=".nii")
    claimed = scan.pixdim * stretch
    with tempfile.TemporaryDirectory() as folder:
        path = scan.save(folder)
        raw = bytearray(path.read_bytes())
        raw[80:92] = claimed.astype("<f4").tobytes()
        path.write_bytes(raw)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CalidWarning)
            stack = read(path, spacing_from=choice)
    spoken = [str(w.message) for w in caught if "`spacing_from` affine takes" in str(w.message)]
    differs = any(s != 1 for s in stretch)
    assert len(spoken) == (choice == "auto" and differs)
    wanted = scan.pixdim if choice == "affine" else claimed
    np.testing.assert_allclose(spacing(stack.affine), wanted, rtol=1e-5)
    # Directions and origin are the sform's, whoever gives the spacing.
    np.testing.assert_allclose(
        stack.affine[:3, :3] / spacing(stack.affine),
        scan.affine[:3, :3] / scan.pixdim,
        atol=1e-5,
    )
    np.testing.assert_allclose(stack.affine[:3, 3], scan.affine[:3, 3], rtol=1e-6, atol=1e-5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    gaps=st.lists(st.sampled_from([8.0, 8.0, 8.0, 7.9, 16.0, 24.1]), min_size=1, max_size=6),
    factor=st.integers(1, 9),
)
@pytest.mark.filterwarnings("ignore::calid.errors.CalidWarning")
def test_unequal_gaps_keep_every_acquired_slice_at_its_true_position(
    gaps: list[float], factor: int
) -> None:
    positions = np.concatenate([[0.0], np.cumsum(gaps)])
    data = np.random.default_rng(0).integers(0, 99, (1, len(positions), 3, 4)).astype("i2")
    affine = np.diag([-1.0, -1.0, float(np.mean(gaps)), 1.0])
    stack = SliceStack(data, affine, positions, 1.0, np.zeros(1))
    try:
        dense = densify(stack, linear, factor)
    except GeometryError:
        return
    assert dense.data[:, dense.acquired].tobytes() == data.tobytes()
    assert dense.positions[dense.acquired].tolist() == positions.tolist()
    assert (np.diff(dense.positions) > 0).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(gap=st.floats(0.5, 30), wanted=st.floats(0.2, 40))
def test_the_factor_comes_as_near_to_the_wanted_spacing_as_any(gap: float, wanted: float) -> None:
    stack = SliceStack(
        np.zeros((1, 3, 2, 2), "i2"),
        np.diag([-1.0, -1.0, gap, 1.0]),
        np.arange(3) * gap,
        gap,
        np.zeros(1),
    )
    chosen = choose_factor(stack, None, wanted)
    off = abs(np.log(gap / chosen / wanted))
    assert all(off <= abs(np.log(gap / other / wanted)) + 1e-9 for other in range(1, 200))
