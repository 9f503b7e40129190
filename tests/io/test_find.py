"""What a folder holds, for every verb that takes a folder."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from calid.errors import InputError
from calid.io.find import Limits, find_images, find_inputs, find_labels, members, plain_stem


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def names(found: object, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found]


def test_images_are_found_at_any_depth_without_masks_and_derivatives(tmp_path):
    masks = [f"a_{mark}.nii" for mark in ("label", "gt", "SEG", "dseg", "uncertainty", "lv")]
    fill(tmp_path, *masks, "b/deep/a_label_ED.NII.gz", ".hidden.nii", "derivatives/a.nii",
         "out/a.nii", "a.zip", "a.nii", "a.txt")  # fmt: skip
    assert names(find_images(tmp_path, tmp_path / "out"), tmp_path) == ["a.nii"]
    assert len(names(find_labels(tmp_path, tmp_path / "out"), tmp_path)) == len(masks) + 1


def test_inputs_are_files_and_outermost_dicom_folders(tmp_path):
    fill(tmp_path, "P1/s1/1.dcm", "P1/s2/2.IMA", "P3/readme", "P4/heart.nii", "P4/1.dcm", "z.zip")
    (tmp_path / "P2").mkdir()
    (tmp_path / "P2/IM0001").write_bytes(bytes(128) + b"DICM")
    assert names(find_inputs(tmp_path), tmp_path) == ["P4/heart.nii", "z.zip", "P1", "P2"]
    assert names(find_inputs(tmp_path, tmp_path / "P1"), tmp_path)[2:] == ["P2"]


def test_a_folder_that_cannot_be_searched_is_said(tmp_path, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    fill(tmp_path, "P1/IM0001")
    monkeypatch.setattr(Path, "open", lambda path, mode: refuse(path))
    with pytest.raises(InputError, match=r"IM0001.*Permission denied"):
        list(find_inputs(tmp_path))
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match="cannot be searched"):
        list(find_images(tmp_path))


@pytest.mark.parametrize("name", ["a.b.nii", "a.b.nii.gz", "a.b.NII.GZ", "a.b.zip", "a.b"])
def test_only_known_endings_are_cut(name):
    assert plain_stem(name) == "a.b"


def test_labels_of_other_layouts_are_no_images(tmp_path):
    marks = ("labels", "lab", "roi", "contours", "segmentation", "rv")
    fill(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "labelsTs/a.nii.gz",
         "labels/a.nii.gz", *(f"imagesTr/a_{mark}.nii" for mark in marks))  # fmt: skip
    assert names(find_images(tmp_path), tmp_path) == ["imagesTr/a_0000.nii.gz"]


@pytest.mark.parametrize(
    "name",
    ["label_sa_ED", "seg_sa", "SEG_sa_ES", "p1-label", "P1_labelmap", "gt", "mask_01", "p1_seg2_ED",
     "segmentations/heart_ventricle_left", "Masks/lv", "labelsTr/p1", "p1_label-LV_x", "x.seg"],
)  # fmt: skip
def test_label_maps_are_known_by_their_names(name, tmp_path):
    fill(tmp_path, f"a/{name}.nii.gz", "a/sa_ED.nii.gz")
    assert names(find_images(tmp_path), tmp_path) == ["a/sa_ED.nii.gz"]
    assert names(find_labels(tmp_path), tmp_path) == [f"a/{name}.nii.gz"]


@pytest.mark.parametrize(
    "name",
    ["sub-01_acq-gt_cine", "labelled", "lv_view", "segment_3", "masked", "ED_rv4", "roi_ED",
     "unsegmented", "lab"],
)  # fmt: skip
def test_names_that_only_resemble_those_of_label_maps_are_images(name, tmp_path):
    fill(tmp_path, f"{name}.nii.gz")
    assert names(find_images(tmp_path), tmp_path) == [f"{name}.nii.gz"]


def test_dicom_in_a_folder_of_label_maps_is_no_input(tmp_path):
    fill(tmp_path, "P1/1.dcm", "segmentations/1.dcm")
    assert names(find_inputs(tmp_path), tmp_path) == ["P1"]


# The files of an input


def test_members_are_numbered_in_the_order_of_paths(tmp_path: Path) -> None:
    for name, content in (("b/2", b"second"), ("a/9", b"first"), ("c", b"third")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with members(tmp_path, Limits()) as (files, walk):
        assert [m.read(-1) for m in files] == [b"first", b"second", b"third"]
        assert [m.read(2) for m in files] == [b"fi", b"se", b"th"]
        assert [m.label for m in files] == ["file 1 of 3", "file 2 of 3", "file 3 of 3"]
        assert (walk.left_out, walk.links) == ({}, 0)


def test_a_zip_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b/2", b"second")
        archive.mkdir("a")
        archive.writestr("a/9", b"first")
    with members(path, Limits()) as (files, _):
        assert [m.read(-1) for m in files] == [b"first", b"second"]


def test_a_large_file_is_sniffed_but_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**20)
    with members(tmp_path, Limits(total=2**19)) as (files, _):
        assert files[0].read(4) == bytes(4)
        with pytest.raises(InputError, match="too much for file 1 of 1"):
            files[0].read(-1)


def test_links_within_a_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x").write_bytes(b"content")
    (tmp_path / "a").symlink_to(tmp_path / "store" / "x")
    with members(tmp_path, Limits()) as (files, walk):
        assert [m.read(-1) for m in files] == [b"content"] * 2
        assert (walk.left_out, walk.links) == ({}, 0)


def test_a_file_that_goes_away(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    with members(tmp_path, Limits()) as (files, _):
        (tmp_path / "a").unlink()
        with pytest.raises(InputError, match="file 1 of 1 cannot be read"):
            files[0].read(-1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    (tmp_path / "a.zip").chmod(0)
    with pytest.raises(InputError, match="cannot be read"), members(tmp_path / "a.zip", Limits()):
        pass
