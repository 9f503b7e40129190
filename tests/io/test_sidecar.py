"""Records belong to their outputs; several files appear together, or none does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from calid.errors import GeometryError, InputError, OutputError
from calid.io.sidecar import record_of, sha256, sidecar_of, together, write_json, write_text


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


def test_json_is_sorted_plain_and_atomic(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json({"b": np.float32(0.5), "a": np.arange(2), "c": Path("x"), "ü": 1}, path)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [0, 1], "b": 0.5, "c": "x", "ü": 1}
    assert text.startswith('{\n  "a"')
    assert text.endswith("}\n")
    for bad, error in (({"a": float("nan")}, ValueError), ({"a": object()}, TypeError)):
        with pytest.raises(error):
            write_json(bad, path)
    assert path.read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


# Files that appear together


def content(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir()}


def writing(text: str):
    return lambda path: write_text(text, path)


def test_no_file_has_its_name_before_all_are_written(tmp_path):
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.json"
    first.write_text("old")
    with together() as write:
        digest = write(first, writing("new"))
        assert first.read_text() == "old"
        assert [p.name.endswith(".part") for p in tmp_path.iterdir() if p != first] == [True]
        write(second, writing(digest))
        assert not second.exists()
    assert content(tmp_path) == {"a.nii.gz": "new", "b.json": sha256(first)}


def test_files_are_renamed_in_the_order_of_writing(tmp_path, monkeypatch):
    order, rename = [], Path.replace

    def watched(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    names = ["z.txt", "a.txt", "record.json"]
    with together() as write:
        for name in names:
            write(tmp_path / name, writing(name))
    assert [name for name in order if not name.startswith(".calid-")] == names


def test_writers_see_the_ending_and_nothing_else_of_the_name(tmp_path):
    seen = []

    def writer(path: Path) -> None:
        seen.append(path)
        write_text("x", path)

    with together() as write:
        write(tmp_path / "Doe.1.nii.gz", writer)
        write(tmp_path / "cut.png", writer)
    assert seen[0].name.endswith(".nii.gz")
    assert seen[1].name.endswith(".png")
    assert not any("Doe" in path.name for path in seen)
    assert all(path.parent == tmp_path for path in seen)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_old_files(tmp_path, error):
    old = tmp_path / "a.txt"
    old.write_text("old")

    def interrupted() -> None:
        with together() as write:
            write(old, writing("new"))
            raise error

    with pytest.raises(error):
        interrupted()
    assert content(tmp_path) == {"a.txt": "old"}


def test_errors_of_a_writer_are_about_the_final_name(tmp_path):
    def refuse(path: Path) -> None:
        raise GeometryError(path, f"{path} is too wide.", "Crop it.")

    target = tmp_path / "a.nii"

    def run() -> None:
        with together() as write:
            write(tmp_path / "first.txt", writing("first"))
            write(target, refuse)

    with pytest.raises(GeometryError) as caught:
        run()
    assert str(caught.value) == f"{target}: {target} is too wide. Crop it."
    assert content(tmp_path) == {}


def test_a_name_that_is_taken_by_a_folder_is_an_output_error(tmp_path):
    target = tmp_path / "a.txt"
    (target / "full").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"a\.txt"), together() as write:
        write(target, writing("new"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_links_are_followed(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    link.symlink_to(real)
    with together() as write:
        write(link, writing("x"))
    assert link.is_symlink()
    assert real.read_text() == "x"
