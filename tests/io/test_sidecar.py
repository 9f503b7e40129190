from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from calid.errors import InputError
from calid.io.sidecar import record_of, sha256, sidecar_of, write_json, write_text


def test_the_hash_of_a_folder_is_that_of_its_content_whatever_the_names(tmp_path: Path) -> None:
    for folder, names in (("a", ("x/1", "2")), ("b", ("3", "y/z/0"))):
        for name, content in zip(names, (b"one", b"two"), strict=True):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(content)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    assert sha256(tmp_path / "a" / "2") == hashlib.sha256(b"two").hexdigest()
    (tmp_path / "b" / "3").write_bytes(b"other")
    assert sha256(tmp_path / "a") != sha256(tmp_path / "b")
    with pytest.raises(InputError):
        sha256(tmp_path / "missing")


def made(path: Path, factor: int) -> None:
    """An output and its record, as every verb writes them."""
    place = sidecar_of(path)
    path.write_bytes(b"volume %d" % factor)
    write_json({"factor": factor, "output": {}, "files_sha256": {"output": sha256(path)}}, place)


@pytest.mark.parametrize("order", [("x.nii", "x.nii.gz"), ("x.nii.gz", "x.nii")])
def test_outputs_of_one_stem_keep_a_record_each(order: tuple[str, str], tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in order)
    made(first, 2)
    made(second, 5)
    assert sidecar_of(first).name == "x.json"
    assert sidecar_of(second).name == f"{second.name}.json"
    made(first, 3)
    made(second, 6)
    assert [record_of(path)[0]["factor"] for path in (first, second)] == [3, 6]
    assert [record_of(path)[1] for path in (first, second)] == [None, None]
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize(
    ("name", "record"),
    [("a.nii.b.nii.gz", "a.nii.b.json"), ("A.NII.GZ", "A.json"), ("a.b.nii", "a.b.json")],
)
def test_a_record_is_named_by_all_of_the_stem(name: str, record: str) -> None:
    assert sidecar_of(Path(name)).name == record


def test_a_record_of_other_bytes_is_none(tmp_path: Path) -> None:
    made(tmp_path / "x.nii", 2)
    (tmp_path / "x.nii").write_bytes(b"other")
    assert record_of(tmp_path / "x.nii") == ({}, tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"RepetitionTime": 2}')
    assert record_of(tmp_path / "x.nii") == ({}, None)


def test_text_with_a_name_that_is_no_utf_8_is_written(tmp_path: Path) -> None:
    write_text("M\udcfcller", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "M\\udcfcller"
