from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from calid.cohort.names import Name, label

DERIVED = {
    "sub-01/anat/sub-01_cine.nii.gz": "sub-01/anat/sub-01_desc-calid_cine.nii.gz",
    "sub-01/ses-a/cine/sub-01_ses-a_acq-sax_run-2_bold.nii": (
        "sub-01/ses-a/cine/sub-01_ses-a_acq-sax_run-2_desc-calid_bold.nii.gz"
    ),
    # Derived from a derivative: one description, the last.
    "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz": "sub-01/anat/sub-01_desc-calid_T1w.nii.gz",
    # No BIDS name of its own: the folders and the file's name serve.
    "sub-01/ses-2/anat/short axis_4D.nii.gz": (
        "sub-01/ses-2/anat/sub-01_ses-2_desc-calid_shortaxis4D.nii.gz"
    ),
    "sub-01/sub-01_sax.nii.gz": "sub-01/anat/sub-01_desc-calid_sax.nii.gz",
    "sub-01/heart.nii": "sub-01/anat/sub-01_desc-calid_heart.nii.gz",
}


@pytest.mark.parametrize(("path", "expected"), DERIVED.items())
def test_a_derivative_keeps_the_entities_and_says_who_made_it(path, expected):
    assert str(Name.placed(PurePosixPath(path)).derivative) == expected


def test_a_lone_subject_gets_a_name():
    expected = "sub-patient001ED/anat/sub-patient001ED_desc-calid_sax.nii.gz"
    assert str(Name.of_subject("patient001_ED").derivative) == expected
    assert Name.of_subject("sub-patient001ED") == Name.of_subject("patient001_ED")


@pytest.mark.parametrize(
    "name",
    ["heart.nii.gz", "ses-1_cine.nii", "sub-1.nii", "sub-1_sub-2_cine.nii", "sub-a b_cine.nii"],
)
def test_what_is_no_bids_name_is_not_taken_for_one(name):
    assert Name.parse(PurePosixPath(name)) is None


def test_labels_are_letters_and_digits():
    assert label("P-001_ä x") == "P001x"
    assert label("--") == "none"
