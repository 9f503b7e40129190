"""Half a file or folder never stands under the final name."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from calid.errors import OutputError
from calid.io.atomic import (
    LEFTOVER_AGE,
    atomic,
    atomic_folder,
    check_folder,
    check_new_folder,
    check_output,
    make_folder,
)

NO_PROC = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place without files")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def file_in(path: Path) -> Iterator[None]:
    with atomic(path) as file:
        file.write(b"new")
        yield


@contextmanager
def folder_in(path: Path) -> Iterator[None]:
    with atomic_folder(path) as folder:
        (folder / "a").write_bytes(b"new")
        yield


WAYS = pytest.mark.parametrize("way", [file_in, folder_in])


@WAYS
def test_it_appears_at_the_end_under_the_umask(tmp_path: Path, way: Callable) -> None:
    old = os.umask(0o027)
    try:
        with way(tmp_path / "out"):
            assert not (tmp_path / "out").exists()
    finally:
        os.umask(old)
    assert names(tmp_path) == ["out"]
    expected = 0o640 if way is file_in else 0o750
    assert (tmp_path / "out").stat().st_mode & 0o777 == expected
    if way is folder_in:
        assert names(tmp_path / "out") == ["a"]


def test_a_file_is_replaced_and_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic(tmp_path / "link") as file:
        file.write(b"new")
        assert (tmp_path / "real").read_bytes() == b"old"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert names(tmp_path) == ["link", "real"]


@WAYS
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_any_exception_leaves_what_was_there(
    tmp_path: Path, way: Callable, there: bool, error: type[BaseException]
) -> None:
    out = tmp_path / "out"
    if there and way is file_in:
        out.write_bytes(b"old")
    elif there:
        out.mkdir()

    def interrupted() -> None:
        with way(out):
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == ["out"] * there
    if there:
        assert out.read_bytes() == b"old" if way is file_in else names(out) == []


def test_files_that_came_meanwhile_are_kept(tmp_path: Path) -> None:
    def raced() -> None:
        with folder_in(tmp_path / "out"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "a").write_bytes(b"theirs")

    with pytest.raises(OutputError, match="could not be written"):
        raced()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "a").read_bytes() == b"theirs"


@pytest.mark.parametrize("step", ["os.fsync", "Path.replace"])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    monkeypatch.setattr(f"calid.io.atomic.{step}", full)
    with pytest.raises(OutputError, match=r"a\.bin.*No space left.*unchanged"), file_in(target):
        pass
    assert (names(tmp_path), target.read_bytes()) == (["a.bin"], b"old")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["atomic", "atomic_folder"])
def test_killed_while_writing(tmp_path: Path, name: str) -> None:
    target = tmp_path / "out"
    if name == "atomic":
        target.write_bytes(b"old")
    code = (
        "import os, signal, sys\n"
        f"from calid.io.atomic import {name}\n"
        f"with {name}(sys.argv[1]) as out:\n"
        "    if hasattr(out, 'write'): out.write(b'half'); out.flush()\n"
        "    else: (out / 'a').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert all(path == "out" or path.endswith(".part") for path in names(tmp_path))
    assert target.read_bytes() == b"old" if name == "atomic" else not target.exists()


def test_leftovers_of_killed_runs_are_removed_and_those_of_live_ones_kept(tmp_path: Path) -> None:
    (tmp_path / ".calid-folder.part").mkdir()
    (tmp_path / ".calid-folder.part" / "half").write_bytes(b"x")
    old = LEFTOVER_AGE + 60
    ages = {".calid-old.part": old, ".calid-new.part": 0, "old.part": 10**6}
    for name in ages:
        (tmp_path / name).write_bytes(b"half")
    for name, age in (ages | {".calid-folder.part": old}).items():
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with file_in(tmp_path / "a.bin"):
        pass
    assert names(tmp_path) == [".calid-new.part", "a.bin", "old.part"]


@pytest.mark.parametrize(
    ("act", "rule"), [(make_folder, "cannot be made"), (check_folder, "is a file, not a folder")]
)
def test_folders_may_be_missing_but_no_file_may_stand_there(
    tmp_path: Path, act: Callable[[Path], None], rule: str
) -> None:
    for _ in range(2):
        act(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir() == (act is make_folder)
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=rule):
            act(path)


def test_check_output(tmp_path: Path) -> None:
    source = tmp_path / "in.nii"
    source.write_bytes(b"x")
    hard, soft = tmp_path / "hard.nii", tmp_path / "soft.nii"
    hard.hardlink_to(source)
    soft.symlink_to(source)
    before = names(tmp_path)
    check_output(tmp_path / "OUT.NII.GZ", [source], (".nii.gz",))
    check_output(str(tmp_path / "out"))
    cases = [
        (tmp_path / "no" / "out.nii", "does not exist.*Create"),
        (tmp_path, "folder"),
        (tmp_path / "out.png", r"wrong ending.*\.nii"),
        *[(path, "also the input") for path in (source, hard, soft)],
        (tmp_path / ".." / tmp_path.name / "in.nii", "also the input"),
    ]
    for path, rule in cases:
        with pytest.raises(OutputError, match=rule) as caught:
            check_output(path, [source], () if path == tmp_path else (".nii", ".nii.gz"))
        assert str(path) in str(caught.value)
    assert names(tmp_path) == before


def test_check_new_folder(tmp_path: Path) -> None:
    for name in ("in", "full", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "a").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    before = names(tmp_path)
    for name in ("new", "empty"):
        check_new_folder(tmp_path / name, [tmp_path / "in"], [tmp_path / "out.nii"])
    cases = [
        ("file", "This is a file"),
        ("full", "not empty"),
        ("no/out", "does not exist.*Create"),
        *[(name, "lies in the input") for name in ("in", "in/out", "link/out")],
        ("out", "would lie in this folder"),
    ]
    for name, rule in cases:
        with pytest.raises(OutputError, match=rule) as caught:
            check_new_folder(tmp_path / name, [tmp_path / "in"], [tmp_path / "out" / "a.nii"])
        assert str(tmp_path / name) in str(caught.value)
    assert names(tmp_path) == before
    assert names(tmp_path / "in") == []


def test_a_disk_and_a_folder_that_cannot_be_searched_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.path.ismount", lambda path: True)
        with pytest.raises(OutputError, match="root of a disk"):
            check_new_folder(tmp_path)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(OutputError, match="cannot be searched: Permission denied"):
        check_new_folder(tmp_path)


@NO_PROC
@pytest.mark.parametrize("check", [check_output, check_folder, check_new_folder])
def test_places_that_refuse_files_even_of_root(check: Callable[[str], None]) -> None:
    with pytest.raises(OutputError, match="refuses new files"):
        check("/proc/out")


@NO_PROC
@WAYS
def test_writing_where_nothing_can_be_written(way: Callable) -> None:
    with pytest.raises(OutputError, match="could not be written"), way(Path("/proc/out.nii")):
        pass
