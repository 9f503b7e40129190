"""One affine out of a NIfTI header, by the documented rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Header
from scipy.spatial.transform import Rotation

from calid.errors import GeometryError, UsageError
from calid.geometry.affine import check, dense_affine, from_spacing, resolve, spacing

STEPS = (1.8, 1.8, 10.0)


def header(
    sform: Any = None, qform: Any = None, pixdim: Any = None, units: int = 2
) -> Nifti1Header:
    made = Nifti1Header()
    made.set_data_shape((4, 4, 4))
    made.set_qform(qform, code=0 if qform is None else 1)
    made.set_sform(sform, code=0 if sform is None else 1)
    if pixdim is not None:
        made["pixdim"][1:4] = pixdim
    made["xyzt_units"] = units
    return made


def rotation(*angles: float) -> np.ndarray:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz"[: len(angles)], angles).as_matrix()
    return turn


def test_from_spacing_is_an_untilted_supine_scan() -> None:
    affine = from_spacing(STEPS, origin=(1, 2, 3))
    np.testing.assert_array_equal(affine[:3, :3], np.diag([-1.8, -1.8, 10.0]))
    np.testing.assert_array_equal(affine[:3, 3], [1, 2, 3])
    assert spacing(affine) == STEPS


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_from_spacing_refuses(bad: float) -> None:
    with pytest.raises(GeometryError, match="three positive sizes"):
        from_spacing((1.0, bad, 1.0))


def test_dense_affine_keeps_origin_and_plane() -> None:
    affine = rotation(0.3, 0.2, 0.1) @ from_spacing(STEPS, origin=(5, 6, 7))
    dense = dense_affine(affine, 2.5)
    np.testing.assert_allclose(spacing(dense), (1.8, 1.8, 2.5))
    np.testing.assert_array_equal(dense[:, [0, 1, 3]], affine[:, [0, 1, 3]])
    # Dense slice 4 is acquired slice 1.
    np.testing.assert_allclose(dense @ [2, 3, 4, 1], affine @ [2, 3, 1, 1])
    with pytest.raises(GeometryError, match="positive distance"):
        dense_affine(affine, 0)


def test_dense_affine_starts_further_along_the_normal() -> None:
    affine = rotation(0.3, 0.2, 0.1) @ from_spacing(STEPS, origin=(5, 6, 7))
    dense = dense_affine(affine, 2.0, start=2.5)
    np.testing.assert_allclose(dense @ [2, 3, 0, 1], affine @ [2, 3, 0.25, 1])


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda a: a.__setitem__((0, 3), np.nan), "not numbers"),
        (lambda a: a.__setitem__((1, 1), np.inf), "not numbers"),
        (lambda a: a.__setitem__((slice(3), 2), 0), "singular"),
        (lambda a: a.__setitem__((slice(3), 2), a[:3, 1]), "singular"),
        (lambda a: a.__setitem__((0, 2), 0.2), "sheared"),
        (lambda a: a.__setitem__((3, 0), 1), "0 0 0 1"),
    ],
)
def test_check_names_the_damage(damage: Any, rule: str) -> None:
    affine = from_spacing(STEPS)
    damage(affine)
    with pytest.raises(GeometryError, match=f"scan.nii: .*{rule}.*dcm2niix"):
        check(affine, "scan.nii")


def test_check_allows_half_a_degree() -> None:
    affine = from_spacing(STEPS)
    affine[0, 2] = 10 * np.sin(np.radians(0.5))
    check(affine, "scan.nii")
    affine[0, 2] = 10 * np.sin(np.radians(0.65))
    with pytest.raises(GeometryError, match=r"0\.65 degrees"):
        check(affine, "scan.nii")


@settings(max_examples=25, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    steps=st.tuples(*[st.floats(0.5, 20)] * 3),
    flip=st.booleans(),
    which=st.sampled_from(["sform", "qform"]),
)
def test_sound_headers_pass_unchanged(
    angles: tuple[float, ...], steps: tuple[float, ...], flip: bool, which: str
) -> None:
    affine = rotation(*angles) @ from_spacing(steps, origin=(-20, 30, 40))
    if flip:
        affine[:3, 2] *= -1
    got, notes = resolve(header(**{which: affine}, pixdim=steps), "scan.nii")
    assert notes == []
    np.testing.assert_allclose(got, affine, atol=0.02 if which == "qform" else 1e-4)
    assert np.sign(np.linalg.det(got)) == np.sign(np.linalg.det(affine))


def test_sform_and_qform_that_agree_are_silent() -> None:
    affine = rotation(3.1, 0.0, 1.0) @ from_spacing(STEPS)
    assert resolve(header(affine, affine, STEPS), "scan.nii")[1] == []


def test_acdc_header_is_rescaled_to_pixdim_and_says_so() -> None:
    damaged = header(from_spacing((1, 1, 1), origin=(4, 5, 6)), pixdim=STEPS)
    affine, notes = resolve(damaged, "scan.nii")
    np.testing.assert_allclose(affine, from_spacing(STEPS, origin=(4, 5, 6)), rtol=1e-6)
    (note,) = notes
    assert "1 x 1 x 1 mm" in note
    assert "1.8 x 1.8 x 10 mm" in note
    assert "`spacing_from` affine" in note
    affine, notes = resolve(damaged, "scan.nii", "affine")
    assert (spacing(affine), notes) == ((1, 1, 1), [])
    affine, notes = resolve(damaged, "scan.nii", "pixdim")
    np.testing.assert_allclose(spacing(affine), STEPS, rtol=1e-6)
    assert notes == []


def test_one_percent_is_rounding() -> None:
    affine, notes = resolve(header(from_spacing((1.79, 1.79, 10)), pixdim=STEPS), "scan.nii")
    np.testing.assert_allclose(spacing(affine), (1.79, 1.79, 10), rtol=1e-6)
    assert notes == []


@pytest.mark.parametrize(
    "qform", [from_spacing(STEPS, (9, 0, 0)), rotation(0.1) @ from_spacing(STEPS)]
)
def test_sform_wins_over_another_qform(qform: np.ndarray) -> None:
    affine, notes = resolve(header(from_spacing(STEPS), qform, STEPS), "scan.nii")
    np.testing.assert_allclose(affine, from_spacing(STEPS), atol=1e-6)
    assert len(notes) == 1
    assert "sform and qform disagree" in notes[0]


def test_broken_qform() -> None:
    damaged = header(from_spacing(STEPS), from_spacing(STEPS), STEPS)
    damaged["quatern_b"] = 2
    _, notes = resolve(damaged, "scan.nii")
    assert "qform cannot be read" in notes[0]
    damaged["sform_code"] = 0
    with pytest.raises(GeometryError, match="not a rotation"):
        resolve(damaged, "scan.nii")


def test_neither_form_is_pixdim_on_supine_axes() -> None:
    affine, notes = resolve(header(pixdim=STEPS), "scan.nii")
    np.testing.assert_allclose(affine, from_spacing(STEPS), rtol=1e-6)
    assert len(notes) == 1
    assert "neither sform nor qform" in notes[0]
    with pytest.raises(GeometryError, match="no affine"):
        resolve(header(pixdim=STEPS), "scan.nii", "affine")


@pytest.mark.parametrize(("units", "scale"), [(1, 1e-3), (2, 1), (3, 1e3), (0, 1)])
@pytest.mark.parametrize("which", ["sform", "qform", None])
def test_units_become_millimetres(units: int, scale: float, which: str | None) -> None:
    stored = from_spacing(np.multiply(STEPS, scale).tolist(), origin=np.multiply((1, 2, 3), scale))
    forms = {} if which is None else {which: stored}
    made = header(**forms, pixdim=np.multiply(STEPS, scale), units=units)
    affine, notes = resolve(made, "scan.nii")
    np.testing.assert_allclose(spacing(affine), STEPS, rtol=1e-5)
    if which is not None:
        assert notes == []
        np.testing.assert_allclose(affine[:3, 3], (1, 2, 3), rtol=1e-5)


@pytest.mark.parametrize("units", [0, 2])
def test_implausible_spacing_is_kept_and_said(units: int) -> None:
    made = header(from_spacing((1800, 1800, 10000)), pixdim=(1800, 1800, 10000), units=units)
    affine, notes = resolve(made, "scan.nii")
    assert spacing(affine) == (1800, 1800, 10000)
    assert "implausible" in notes[0]


@pytest.mark.parametrize("bad", [0.0, -1.8, np.nan, np.inf, 1e-30, 1e30])
def test_bad_pixdim(bad: float) -> None:
    made = header(from_spacing(STEPS), pixdim=(1.8, bad, 10))
    with pytest.raises(GeometryError, match=r"scan\.nii.*pixdim.*`spacing_from` affine"):
        resolve(made, "scan.nii")
    affine, _ = resolve(made, "scan.nii", "affine")
    np.testing.assert_allclose(spacing(affine), STEPS, rtol=1e-6)


def test_unknown_choice() -> None:
    with pytest.raises(UsageError, match="auto, pixdim, affine"):
        resolve(header(pixdim=STEPS), "scan.nii", "sform")  # type: ignore[arg-type]
