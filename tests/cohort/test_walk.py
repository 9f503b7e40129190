from __future__ import annotations

from pathlib import Path

import pytest
from cohort_jobs import subjects_named

from calid.cohort.walk import left_out, parse_shard, shard, walk
from calid.errors import InputError, UsageError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def targets(*args: object, **options: object) -> list[str]:
    return [str(subject.target) for subject in walk(*args, **options)]


@pytest.fixture
def bids(tmp_path):
    return fill(
        tmp_path / "bids",
        "dataset_description.json",
        "sub-02/anat/sub-02_cine.nii",
        "sub-01/ses-1/anat/sub-01_ses-1_cine.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_cine.json",
        "sub-01/ses-1/anat/sub-01_ses-1_mask.nii.gz",
        "sub-01/ses-2/cine/sub-01_ses-2_bold.nii.gz",
        "sub-01/.git/annex/sub-01_cine.nii.gz",
        "derivatives/other/sub-01/anat/sub-01_desc-x_cine.nii.gz",
        "phantom.nii.gz",
    )


def test_a_bids_tree_gives_the_images_of_its_subjects(bids):
    assert targets(bids) == [
        "sub-01/ses-1/anat/sub-01_ses-1_desc-calid_cine.nii.gz",
        "sub-01/ses-2/cine/sub-01_ses-2_desc-calid_bold.nii.gz",
        "sub-02/anat/sub-02_desc-calid_cine.nii.gz",
    ]
    assert walk(bids)[2].source == bids / "sub-02/anat/sub-02_cine.nii"


def test_a_pattern_chooses(bids):
    assert len(targets(bids, "*_cine.nii*")) == 2
    with pytest.raises(InputError, match="no image that matches"):
        walk(bids, "*_T1w.nii.gz")


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
    with pytest.raises(UsageError, match=r"sub-ab_desc-calid_sax.*a_b\.nii.*--match"):
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
    (tmp_path / "list.csv").write_text("id,path\nP-7,/data/heart.nii\nsub-8,/data2/heart.nii\n")
    assert [s.name.split("/")[0] for s in walk(tmp_path / "list.csv")] == ["sub-8", "sub-P7"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", b"file,id\na.nii,1\n"),
        ("list.csv", b"path,id\n,1\n"),
        ("list.csv", b"path\n"),
        ("list.csv", b""),
        ("list.txt", b"# nothing\n"),
        ("list.txt", b"\xff\xfe\x00"),
        ("heart.nii", b""),
    ],
)
def test_a_list_that_is_none_is_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        walk(tmp_path / name)


def test_what_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such"):
        walk(tmp_path / "absent")
    with pytest.raises(InputError, match="no image"):
        walk(tmp_path)


@pytest.mark.parametrize(("size", "count"), [(7, 3), (2, 5), (12, 4), (5, 1)])
def test_shards_are_disjoint_together_all_and_even(size, count):
    subjects = subjects_named(f"s{n:02d}" for n in range(size))
    parts = [shard(reversed(subjects), n, count) for n in range(1, count + 1)]
    assert sorted(s for part in parts for s in part) == subjects
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_shard_is_a_number_of_a_number():
    assert parse_shard("3/10") == (3, 10)
    for text in ("0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", ""):
        with pytest.raises(UsageError):
            parse_shard(text)


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


@pytest.mark.parametrize("text", ["path;id\n", "", "sep=;\npath;id\n;\n", "file;id\na;b\n"])
def test_a_table_without_a_subject_is_an_error(text, tmp_path):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=r"list is empty|no column 'path'"):
        walk(tmp_path / "list.csv")


def test_label_maps_are_left_out_and_named(tmp_path):
    labels = ("1/label_sa_ED.nii.gz", "2/segmentations/atrium.nii.gz", "2/masks/lv.nii", "gt/a.nii")
    fill(tmp_path, "1/sa_ED.nii.gz", *labels)
    assert [s.source.name for s in walk(tmp_path)] == ["sa_ED.nii.gz"]
    assert "4 files (1/label_sa_ED.nii.gz, 2/masks/lv.nii, " in left_out(tmp_path)
    (tmp_path / "1/sa_ED.nii.gz").unlink()
    with pytest.raises(InputError, match=r"no image that matches.*4 files"):
        walk(tmp_path)
