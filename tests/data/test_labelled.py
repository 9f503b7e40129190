"""Labels beside stacks, on the networks' grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nifti_files import save as save_nifti
from numpy.typing import NDArray

from calid.data.bank import LEVELS, label_file, load_labelled, to_film, to_network_grid
from calid.errors import DataError
from calid.geometry.affine import from_spacing
from calid.io import read


def save(path: Path, data: NDArray[np.generic]) -> Path:
    return save_nifti(path, data.T, from_spacing((1.5, 1.5, 8.0)))


def random_images(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(0, 300, shape).astype(np.int16)


def random_labels(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)


def test_labels_on_the_same_grid_come_back_as_they_were(tmp_path):
    images, labels = random_images((3, 21, 18)), random_labels((3, 21, 18))
    path = save(tmp_path / "p1_ED.nii.gz", images)
    save(tmp_path / "p1_ED_label.nii.gz", labels)
    (found,) = load_labelled(tmp_path)
    assert (found.subject, found.name) == ("p1", "p1_ED")
    np.testing.assert_array_equal(found.labels, labels)
    assert found.labels.dtype == np.uint8
    assert found.images.dtype == np.float32
    film = to_film(read(path), "p1")
    np.testing.assert_allclose(found.images, film.frames[0] / LEVELS, rtol=1e-6)


@pytest.mark.parametrize("kind", ["f4", "i2", "f8"])
def test_labels_may_be_stored_as_any_number(kind):
    labels = random_labels((2, 9, 11))
    almost = labels.astype(kind) + (0.004 if kind[0] == "f" else 0)
    np.testing.assert_array_equal(to_network_grid(almost, (1.5, 1.5)), labels)


def test_other_numbers_are_background():
    labels = np.zeros((1, 8, 8), np.int16)
    labels[0, 2:4, 2:4], labels[0, 5:7, 5:7] = 7, 2
    found = to_network_grid(labels, (1.5, 1.5))
    np.testing.assert_array_equal(found, np.where(labels == 2, 2, 0))


def test_coarser_labels_go_to_the_majority():
    rng = np.random.default_rng(1)
    wide = np.kron(rng.integers(0, 4, (2, 3, 3)), np.ones((1, 8, 8), int)).astype(np.uint8)
    found = to_network_grid(wide, (0.75, 0.75))
    assert found.shape == (2, 12, 12)
    np.testing.assert_array_equal(found, wide[:, ::2, ::2])
    # A stray pixel is outvoted.
    wide[:, 4, 4] = (wide[:, 4, 4] + 1) % 4
    np.testing.assert_array_equal(to_network_grid(wide, (0.75, 0.75)), found)
    # Not a mean of numbers: between 1 and 3 there is no 2.
    edge = np.ones((1, 40, 40), np.uint8)
    edge[..., 20:] = 3
    assert set(np.unique(to_network_grid(edge, (1.1, 1.1)))) == {1, 3}


def test_finer_labels_keep_their_area_and_place():
    rows, columns = np.mgrid[:40, :60]
    # An ellipse in pixels of 2.4 x 1.9 mm; 12 mm and 30 mm off the centre.
    y, x = (rows - 19.5) * 2.4, (columns - 29.5) * 1.9
    labels = np.where(np.hypot(y - 12, x + 30) < 20, 3, 0)[None].astype(np.uint8)
    found = to_network_grid(labels, (2.4, 1.9))
    assert found.shape == (1, 64, 76)
    assert set(np.unique(found)) == {0, 3}
    area = (found == 3).sum() * 1.5**2
    assert area == pytest.approx(np.pi * 20**2, rel=0.02)
    place = np.argwhere(found[0] == 3).mean(0)
    centre = (place - [31.5, 37.5]) * 1.5
    np.testing.assert_allclose(centre, [12, -30], atol=0.4)


def test_only_stacks_with_labels_are_found(tmp_path):
    for number in (1, 2, 3):
        save(tmp_path / "deep" / f"p{number}_ED.nii", random_images((3, 12, 12), number))
    for number in (1, 3):
        save(tmp_path / "deep" / f"p{number}_ED_label.nii", random_labels((3, 12, 12), number))
    # A box of the heart without classes is no label file.
    save(tmp_path / "deep" / "p2_ED_lv.nii", random_labels((3, 12, 12)))
    found = load_labelled(tmp_path)
    assert [s.subject for s in found] == ["p1", "p3"]
    for stack, number in zip(found, (1, 3), strict=True):
        np.testing.assert_array_equal(stack.labels, random_labels((3, 12, 12), number))


def test_a_film_gives_its_first_frame(tmp_path):
    save(tmp_path / "p1_ED.nii", random_images((2, 3, 12, 12)))
    save(tmp_path / "p1_ED_label.nii", random_labels((2, 3, 12, 12)))
    (found,) = load_labelled(tmp_path)
    assert found.images.shape == found.labels.shape == (3, 12, 12)
    film = to_film(read(tmp_path / "p1_ED.nii"), "p1").frames
    np.testing.assert_allclose(found.images, film[0] / LEVELS, rtol=1e-6)
    assert not np.array_equal(film[0], film[1])
    np.testing.assert_array_equal(found.labels, random_labels((2, 3, 12, 12))[0])


def test_without_any_labels_there_is_nothing_to_learn(tmp_path):
    save(tmp_path / "p1_ED.nii", random_images((3, 12, 12)))
    with pytest.raises(DataError, match="No stack has a label file") as caught:
        load_labelled(tmp_path)
    assert "X_label.nii.gz" in caught.value.remedy


def test_labels_of_another_shape_are_refused(tmp_path):
    save(tmp_path / "p1_ED.nii", random_images((3, 12, 12)))
    beside = save(tmp_path / "p1_ED_label.nii", random_labels((3, 12, 13)))
    with pytest.raises(DataError, match="do not fit the stack") as caught:
        load_labelled(tmp_path)
    assert caught.value.subject == str(beside)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_the_label_file_is_the_one_with_the_same_ending(tmp_path, suffix):
    stack = tmp_path / f"p1_ED{suffix}"
    assert label_file(stack) is None
    (tmp_path / "p1_ED_label.nii.bz2").touch()
    assert label_file(stack) is None
    beside = tmp_path / f"p1_ED_label{suffix}"
    beside.touch()
    assert label_file(stack) == beside


def test_names_in_capitals_have_no_labels(tmp_path):
    assert label_file(tmp_path / "P1_ED.NII.GZ") is None
