from __future__ import annotations

from pathlib import Path

import pytest

from calid.cohort.walk import left_out, walk
from calid.errors import InputError, UsageError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def targets(*args: object, **options: object) -> list[str]:
    return [str(subject.target) for subject in walk(*args, **options)]


BIDS = {
    "sub-01/anat/sub-01_cine.nii.gz": "sub-01/anat/sub-01_desc-calid_cine.nii.gz",
    "sub-01/ses-a/cine/sub-01_ses-a_acq-sax_run-2_bold.nii": (
        "sub-01/ses-a/cine/sub-01_ses-a_acq-sax_run-2_desc-calid_bold.nii.gz"
    ),
    # Derived from a derivative: one description, the last.
    "sub-02/anat/sub-02_desc-preproc_T1w.nii.gz": "sub-02/anat/sub-02_desc-calid_T1w.nii.gz",
    # Without a BIDS name the folders and the file's name serve.
    "sub-02/ses-2/anat/short axis_4D.nii.gz": (
        "sub-02/ses-2/anat/sub-02_ses-2_desc-calid_shortaxis4D.nii.gz"
    ),
    "sub-02/anat/sub-02_sub-3_cine.nii": "sub-02/anat/sub-02_desc-calid_sub02sub3cine.nii.gz",
    "sub-03/sub-03_sax.nii.gz": "sub-03/anat/sub-03_desc-calid_sax.nii.gz",
    "sub-03/heart.nii": "sub-03/anat/sub-03_desc-calid_heart.nii.gz",
    "sub-03/--.nii": "sub-03/anat/sub-03_desc-calid_none.nii.gz",
}
"""Files of a tree, and the names of their derivatives."""


@pytest.fixture
def bids(tmp_path):
    return fill(
        tmp_path / "bids",
        *BIDS,
        "dataset_description.json",
        "sub-01/anat/sub-01_cine.json",
        "sub-01/anat/sub-01_mask.nii.gz",
        "sub-01/.git/annex/sub-01_cine.nii.gz",
        "derivatives/other/sub-01/anat/sub-01_desc-x_cine.nii.gz",
        "phantom.nii.gz",
    )


def test_a_bids_tree_gives_the_images_of_its_subjects(bids):
    found = {s.source.relative_to(bids).as_posix(): str(s.target) for s in walk(bids)}
    assert found == BIDS
    assert list(found.values()) == sorted(found.values())


def test_a_pattern_chooses(bids):
    assert len(targets(bids, "*_cine.nii*")) == 2
    with pytest.raises(InputError, match="no image that matches"):
        walk(bids, "*_T2w.nii.gz")


def test_a_plain_folder_gives_a_subject_a_file(tmp_path):
    fill(tmp_path, "b_ED.nii.gz", "a/frame01.nii", "b_ED_gt.nii.gz", "notes.txt", "c.zip",
         ".calid-0.part", "out/sub-x/anat/sub-x_desc-calid_sax.nii.gz")  # fmt: skip
    assert targets(tmp_path, out=tmp_path / "out") == [
        "sub-aframe01/anat/sub-aframe01_desc-calid_sax.nii.gz",
        "sub-bED/anat/sub-bED_desc-calid_sax.nii.gz",
        "sub-c/anat/sub-c_desc-calid_sax.nii.gz",
    ]


def test_folders_of_dicom_files_are_subjects(tmp_path):
    fill(tmp_path, "P1/series1/1.dcm", "P1/series2/2.dcm", "P3/readme", "P4/heart.nii")
    (tmp_path / "P2").mkdir()
    (tmp_path / "P2/IM0001").write_bytes(bytes(128) + b"DICM")
    found = walk(tmp_path)
    assert [s.source.name for s in found] == ["P1", "P2", "heart.nii"]
    assert found[1].name == "sub-P2/anat/sub-P2_desc-calid_sax"


def test_a_link_back_to_the_root_is_not_followed(tmp_path):
    fill(tmp_path, "a.nii", "b/c.nii")
    (tmp_path / "b/loop").symlink_to(tmp_path)
    assert len(walk(tmp_path)) == 2


def test_two_subjects_never_share_an_output(tmp_path):
    fill(tmp_path, "a_b.nii", "ab.nii")
    with pytest.raises(UsageError, match=r"sub-ab_desc-calid_sax.*a_b\.nii.*`match`"):
        walk(tmp_path)


LISTS = {
    "list.txt": "# hearts\nx/one.nii\n\nsub-2/anat/sub-2_run-1_cine.nii\n",
    "list.csv": "path,id\nx/one.nii,\nsub-2/anat/sub-2_run-1_cine.nii,\n",
    "list.tsv": "\ufeffage\tpath\n40\tx/one.nii\n50\tsub-2/anat/sub-2_run-1_cine.nii\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_names_files_relative_to_itself(name, tmp_path):
    (tmp_path / name).write_text(LISTS[name], encoding="utf-8")
    found = walk(tmp_path / name)
    assert [str(s.target) for s in found] == [
        "sub-2/anat/sub-2_run-1_desc-calid_cine.nii.gz",
        "sub-one/anat/sub-one_desc-calid_sax.nii.gz",
    ]
    # Files are not looked at: one that is missing fails alone, when its turn comes.
    assert found[1].source == tmp_path / "x/one.nii"


def test_ids_of_a_list_become_subjects(tmp_path):
    (tmp_path / "list.csv").write_text("id,path\nP-7_ä x,/a/heart.nii\nsub-8,/b/heart.nii\n")
    assert [s.name.split("/")[0] for s in walk(tmp_path / "list.csv")] == ["sub-8", "sub-P7x"]


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("list.csv", b"file,id\na.nii,1\n", "no column 'path'"),
        ("list.csv", b"", "no column 'path'"),
        ("list.csv", b"path,id\n,1\n", "Line 2 has no path"),
        ("list.csv", b"path\n", "list is empty"),
        ("list.csv", b"sep=;\npath;id\n;\n", "list is empty"),
        ("list.txt", b"# nothing\n", "list is empty"),
        ("list.txt", b"\xff\xfe\x00", "cannot be read"),
        ("heart.nii", b"", "neither a folder nor a list"),
    ],
)
def test_a_list_that_is_none_is_refused(name, content, rule, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rule):
        walk(tmp_path / name)


def test_what_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such"):
        walk(tmp_path / "absent")
    with pytest.raises(InputError, match="no image"):
        walk(tmp_path)


TABLES = {
    "semicolons.csv": "id;path;note\ns1;a.nii;b, c\n;;\ns2;b.nii;\n",
    "tabs.csv": "Path\tID\na.nii\ts1\nb.nii\ts2\n",
    "excel.csv": "sep=;\r\nPATH;Id\r\n a.nii ;s1\r\nb.nii; s2\r\n",
    "bars.csv": "id|path\ns1|a.nii\ns2|b.nii\n",
    "quoted.csv": '"path","id"\n"a.nii","s1"\n"b.nii","s2"\n',
}


@pytest.mark.parametrize("name", sorted(TABLES))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_delimiter_of_a_table_is_found(name, encoding, tmp_path):
    (tmp_path / name).write_bytes(TABLES[name].encode(encoding))
    assert targets(tmp_path / name) == [
        f"sub-s{n}/anat/sub-s{n}_desc-calid_sax.nii.gz" for n in "12"
    ]
    assert [s.source for s in walk(tmp_path / name)] == [tmp_path / "a.nii", tmp_path / "b.nii"]


def test_label_maps_are_left_out_and_named(tmp_path):
    labels = ("1/label_sa_ED.nii.gz", "2/segmentations/atrium.nii.gz", "2/masks/lv.nii", "gt/a.nii")
    fill(tmp_path, "1/sa_ED.nii.gz", *labels)
    assert [s.source.name for s in walk(tmp_path)] == ["sa_ED.nii.gz"]
    assert "4 files (1/label_sa_ED.nii.gz, 2/masks/lv.nii, " in left_out(tmp_path)
    (tmp_path / "1/sa_ED.nii.gz").unlink()
    with pytest.raises(InputError, match=r"no image that matches.*4 files"):
        walk(tmp_path)
