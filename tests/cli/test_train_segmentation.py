"""`calid train segmentation`, from the command line to its weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import run, write_nifti
from safetensors.torch import load_file

from calid.training.setup import labelled_phantoms
from calid.weights import weights_path

SHORT = ("--size", 32, "--batch", 2, "--threads", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Labelled stacks of two people, one a folder."""
    top = tmp_path_factory.mktemp("labelled")
    for stack, place in zip(labelled_phantoms(2), ("train", "held"), strict=True):
        for name, voxels in (("ED", 500 * stack.images), ("ED_label", stack.labels)):
            path = top / place / f"{stack.subject}_{name}.nii.gz"
            write_nifti(path, np.moveaxis(voxels, 0, 2).astype(np.int16))
    return top / "train", top / "held"


def train(folders: tuple[Path, Path], out: Path, *more: object) -> int:
    data, held_out = folders
    command = ("train", "segmentation", "--data", data, "--validation", held_out, "--out", out)
    return run(*command, *SHORT, *more)


@pytest.mark.slow
def test_fine_tuning_begins_with_the_weights_it_is_given(folders, tmp_path):
    start = weights_path("segmentation")
    still = ("--start-from", start, "--phantoms", 1, "--steps", 1, "--rate", 0)
    assert train(folders, tmp_path, *still) == 0
    found, given = (load_file(p) for p in (tmp_path / "segmentation.safetensors", start))
    assert found.keys() == given.keys()
    assert all(found[name].equal(given[name]) for name in given)
    assert train(folders, tmp_path / "anew", "--steps", 1, "--rate", 0) == 0
    found = load_file(tmp_path / "anew" / "segmentation.safetensors")
    assert not all(found[name].equal(given[name]) for name in given)


@pytest.mark.slow
def test_labels_of_another_order_are_told_and_mapped(folders, tmp_path, capsys):
    places = tuple(tmp_path / folder.name for folder in folders)
    for folder, place in zip(folders, places, strict=True):
        shutil.copytree(folder, place)
        for path in place.glob("*_label.nii.gz"):
            labels = nib.load(path)
            other = np.array([0, 3, 2, 1], np.uint8)[np.asarray(labels.dataobj)]
            nib.save(nib.Nifti1Image(other, labels.affine), path)
    found = []
    for name, source, more in (
        ("usual", folders, ()),
        ("mapped", places, ("--label-map", "LV=1,MYO=2,RV=3")),
    ):
        out = tmp_path / "out" / name
        assert train(source, out, "--steps", 1, *more) == 0
        assert "another order" not in capsys.readouterr().err
        found.append(load_file(out / "segmentation.safetensors"))
    assert all(found[0][name].equal(found[1][name]) for name in found[0])
    assert train(places, tmp_path / "out" / "warned", "--steps", 1) == 0
    assert "--label-map LV=1,MYO=2,RV=3 reads them so" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_weights_of_another_network_are_refused(folders, tmp_path, capsys):
    assert train(folders, tmp_path, "--start-from", weights_path("autoencoder")) == 7
    assert "segmentation" in capsys.readouterr().err
    assert train((folders[0], folders[0]), tmp_path) == 8, "nobody is on both sides"
    assert "also in the training folders" in capsys.readouterr().err
    assert not (tmp_path / "segmentation.safetensors").exists()
