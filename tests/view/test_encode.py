from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from calid.stack import Intensity
from calid.view.page import encode
from calid.view.scene import Layer


def layer(data: np.ndarray, **options: object) -> Layer:
    affine = np.diag([1.5, -1.5, 4.0, 1.0])
    return Layer(data, affine, np.array([0, 0, 1, 1]), (0.0, 1.0), **options)


def header_of(content: bytes) -> nib.Nifti1Header:
    return nib.Nifti1Header(gzip.decompress(content)[:348])


def test_the_header_is_of_the_shown_grid_and_the_voxels_are_stored_once():
    data = np.arange(3 * 2 * 5 * 7, dtype=np.int16).reshape(3, 2, 5, 7)
    content = encode(layer(data, intensity=Intensity(2.0, -1.0)))
    header = header_of(content)
    assert header.get_data_shape() == (7, 5, 4, 3)
    np.testing.assert_allclose(header.get_sform(), np.diag([1.5, -1.5, 4.0, 1.0]))
    np.testing.assert_allclose(header.get_zooms()[:3], (1.5, 1.5, 4.0))
    assert header.get_slope_inter() == (2.0, -1.0)
    stored = np.frombuffer(gzip.decompress(content)[352:], "<i2")
    np.testing.assert_array_equal(stored, data.ravel())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("u1", "u1"),
        ("i1", "i2"),
        ("i2", "i2"),
        ("u2", "u2"),
        ("i4", "f4"),
        ("f4", "f4"),
        ("f8", "f4"),
    ],
)
def test_voxels_are_of_a_type_that_the_page_reads(before, after):
    data = np.ones((1, 2, 5, 7), before)
    content = encode(layer(data))
    assert header_of(content).get_data_dtype() == np.dtype(after)
    assert (np.frombuffer(gzip.decompress(content)[352:], f"<{after}") == 1).all()


def test_labels_say_that_they_are_labels():
    data = np.ones((1, 2, 5, 7), np.uint8)
    assert int(header_of(encode(layer(data)))["intent_code"]) == 0
    assert int(header_of(encode(layer(data, labels=True)))["intent_code"]) == 1002


def test_equal_layers_give_equal_bytes_without_any_text():
    data = np.ones((1, 2, 5, 7), np.uint8)
    assert encode(layer(data)) == encode(layer(data))
    header = header_of(encode(layer(data)))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        assert not header[field].item()
