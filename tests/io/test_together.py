"""Several files appear, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from calid.errors import GeometryError, OutputError
from calid.io.atomic import atomic
from calid.io.sidecar import sha256, together, write_text


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


def test_what_is_written_by_hand_takes_part(tmp_path):
    def writer(path: Path) -> None:
        with atomic(path) as file:
            file.write(b"x")

    with together() as write:
        write(tmp_path / "a", writer)
    assert content(tmp_path) == {"a": "x"}
