from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from calid.errors import InputError
from calid.io.find import Limits, members


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
        assert [(m.read(-1), m.size) for m in files] == [(b"first", 5), (b"second", 6)]


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
