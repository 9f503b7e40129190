"""What the released weights have to show on real hearts of the validation split."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from calid.cli.main import main
from calid.data.bank import load_labelled
from calid.evaluation.hidden_slices import image_figures, load_case
from calid.evaluation.methods import Roster
from calid.evaluation.metrics import dice
from calid.evaluation.protocol import Case
from calid.geometry.grid import PIXEL_SPACING
from calid.geometry.pixels import BORDER, FADE, PixelGrid
from calid.inference.model import load_model
from calid.io import read
from calid.io.labels import CLASSES, read_labels
from calid.segmentation.heart import heart_region
from calid.segmentation.segment import keep_largest, load_segmenter

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


@pytest.fixture(scope="module")
def cases(real_data: Path) -> list[Case]:
    """Every fifth stack of the validation split."""
    files = sorted((real_data / "acdc" / "val").glob("*_E?.nii.gz"))[::5]
    return [load_case(path, own_pixels=True) for path in files]


@pytest.fixture(scope="module")
def figures(cases: list[Case]) -> dict[str, dict[str, float]]:
    """Mean figures of some methods on every twentieth stack; answers are made once."""
    names = ["linear", "registration", "calid", "calid-mean", "calid-sample"]
    return {
        contender.name: {
            metric: float(np.mean([f[metric].mean() for f in found]))
            for metric in ("psnr", "ssim", "sharpness")
        }
        for contender in Roster(0, "cpu").contenders(names)
        for found in [
            [
                image_figures(
                    contender.method(c.images[0], c.positions, c.targets, c.spacing), c.truth[0]
                )
                for c in cases[::4]
            ]
        ]
    }


def test_the_autoencoder_keeps_unseen_slices(cases):
    model = load_model(device="cpu")
    figures = [
        image_figures(model.recode(images, c.spacing), images)["psnr"]
        for c in cases[::2]
        for images in (c.images[0], c.truth[0])
    ]
    assert np.mean(np.concatenate(figures)) >= 34


def test_the_mean_beats_every_classical_method(figures):
    for metric, least in (("psnr", 1.9), ("ssim", 0.11)):
        assert figures["calid-mean"][metric] >= figures["linear"][metric] + least
        assert figures["calid-mean"][metric] > figures["registration"][metric]


def test_the_default_beats_registration_and_is_as_sharp(figures):
    for metric in ("psnr", "ssim"):
        assert figures["calid"][metric] > figures["registration"][metric]
    assert figures["calid"]["sharpness"] > 0.97 * figures["registration"]["sharpness"]


def test_a_sample_is_sharper_than_the_mean(figures):
    assert figures["calid-sample"]["sharpness"] > figures["calid-mean"]["sharpness"] + 0.1


def test_the_box_about_the_heart_holds_all_that_manual_labels_mark(real_data):
    """With room around it, where the networks' answer has not begun to fade."""
    segmenter, found = load_segmenter("cpu"), 0
    for path in sorted((real_data / "acdc" / "val").glob("*_ES.nii.gz"))[::4]:
        stack = read(path)
        region = heart_region(stack, segmenter)
        if region is None:
            continue  # files are cropped to the heart: in some the box is nearly all
        marked = read_labels(path.with_name(f"{path.name[:-7]}_label.nii.gz"), stack)
        marked = (marked > 0).any(axis=tuple(range(marked.ndim - 2)))
        spans = region.native(PixelGrid.of(stack.shape, stack.pixel_spacing))
        for axis, (first, last) in enumerate(spans):
            there = np.flatnonzero(marked.any(axis=1 - axis))
            room = BORDER + FADE
            size = stack.shape[2 + axis]
            assert first == 0 or there[0] - first > room, path.name
            assert last == size or last - 1 - there[-1] > room, path.name
        found += 1
    assert found >= 3


def test_the_segmentation_agrees_with_manual_labels(real_data):
    segmenter = load_segmenter("cpu")
    scores = []
    for stack in load_labelled(real_data / "acdc" / "val")[::8]:
        found = segmenter.label_slices(stack.images, (PIXEL_SPACING, PIXEL_SPACING))
        found = keep_largest(found)
        scores.append([dice(found == c, stack.labels == c) for c in CLASSES.values()])
    assert np.mean(scores) >= 0.88


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
