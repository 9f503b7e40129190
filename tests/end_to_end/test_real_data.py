"""What the released weights have to show on real hearts of the validation split."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from calid.cli.main import main
from calid.evaluation.case import Case
from calid.evaluation.hidden_slices import image_figures, load_case
from calid.evaluation.methods import Roster
from calid.inference.model import load_model

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def cases(real_data: Path) -> list[Case]:
    """Every fifth stack of the validation split."""
    files = sorted((real_data / "acdc" / "val").glob("*_E?.nii.gz"))[::5]
    return [load_case(path) for path in files]


def gain(cases: list[Case], name: str, metric: str) -> float:
    """Mean over stacks of a method's figure minus linear's."""
    theirs, ours = (
        np.mean(
            [
                image_figures(
                    contender.method(c.images[0], c.positions, c.targets, c.spacing), c.truth[0]
                )[metric].mean()
                for c in cases
            ]
        )
        for contender in Roster(0, "cpu").contenders(["linear", name])
    )
    return float(ours - theirs)


def test_the_autoencoder_keeps_unseen_slices(cases):
    model = load_model(device="cpu")
    figures = [
        image_figures(model.recode(images, c.spacing), images)["psnr"]
        for c in cases
        for images in (c.images[0], c.truth[0])
    ]
    assert np.mean(np.concatenate(figures)) >= 34


@pytest.mark.parametrize(("metric", "least"), [("psnr", 1.9), ("ssim", 0.11)])
def test_the_mean_of_samples_is_above_linear_on_hidden_slices(cases, metric, least):
    assert gain(cases, "calid-average", metric) >= least


def test_a_sample_is_sharper_than_the_mean(cases):
    assert gain(cases, "calid-sample", "sharpness") > gain(cases, "calid-mean", "sharpness") + 0.1


def test_a_clinical_original_keeps_its_slices_and_its_true_spacing(real_data, tmp_path):
    source = real_data / "raw_full_fov" / "patient040_frame01.nii.gz"
    out = tmp_path / "dense.nii.gz"
    main(["reconstruct", str(source), str(out), "--factor", "2", "--samples", "0"])
    before, after = nib.load(source), nib.load(out)
    np.testing.assert_array_equal(np.asarray(after.dataobj)[:, :, ::2], np.asarray(before.dataobj))
    # The sform of this file says 1 mm; its pixdim is right.
    zooms = before.header.get_zooms()
    np.testing.assert_allclose(after.header.get_zooms(), (*zooms[:2], zooms[2] / 2), rtol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(after.affine[:3, :3], axis=0), after.header.get_zooms(), rtol=1e-4
    )
