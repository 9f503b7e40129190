"""What tests of DICOM faults have in common."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from faults.dicom_writer import SECRETS, pixels
from pydicom import Dataset

from calid.errors import CalidError
from calid.io.dicom import DicomStack, read_dicom


def refused(path: Path, kind: type[CalidError], match: str, **options: object) -> CalidError:
    """Reading raises one typed error that names the input and nobody else, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind, match=match) as caught:
            read_dicom(path, **options)
    error = caught.value
    assert type(error) is kind
    assert error.subject == str(path)
    assert error.remedy
    for secret in SECRETS:
        assert secret not in f"{error.rule} {error.remedy}"
    return error


def warned(path: Path, match: str, **options: object) -> DicomStack:
    """What is read with a warning among others."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_dicom(path, **options)
    said = [str(w.message) for w in caught]
    assert any(re.search(match, sentence) for sentence in said), said
    assert not any(secret in sentence for secret in SECRETS for sentence in said)
    return found


def check_is(found: DicomStack, images: list[Dataset], slices: int) -> None:
    """Pixels stand where their headers say, whatever the order they came in."""
    frames = len(images) // slices
    for number, data in enumerate(images):
        slice_, frame = divmod(number, frames)
        np.testing.assert_array_equal(found.stack.data[frame, slice_], pixels(data))
