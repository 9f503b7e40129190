"""A folder stands under its final name whole, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from calid.errors import OutputError
from calid.io.atomic import atomic_folder, check_new_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_appears_at_the_end_under_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "a").write_bytes(b"x")
            assert not (tmp_path / "out").exists()
    finally:
        os.umask(old)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["a"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("empty", [True, False])
def test_any_exception_leaves_nothing(
    tmp_path: Path, error: type[BaseException], empty: bool
) -> None:
    if empty:
        (tmp_path / "out").mkdir()
    before = names(tmp_path)

    def interrupted() -> None:
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "a").write_bytes(b"x")
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == before
    assert not empty or names(tmp_path / "out") == []


def test_files_that_came_meanwhile_are_kept(tmp_path: Path) -> None:
    def raced() -> None:
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "a").write_bytes(b"ours")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "a").write_bytes(b"theirs")

    with pytest.raises(OutputError, match="could not be written"):
        raced()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "a").read_bytes() == b"theirs"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_while_filling(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from calid.io.atomic import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'a').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    assert all(name.endswith(".part") for name in names(tmp_path))


def test_check_accepts(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        folder = tmp_path / name
        check_new_folder(folder, [tmp_path / "in"], [tmp_path / "out.nii"])
    assert names(tmp_path) == ["empty", "in"]


def test_check_refuses(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    cases = [
        ("file", "This is a file"),
        ("full", "not empty"),
        ("no/out", "does not exist.*Create"),
        ("in", "lies in the input"),
        ("in/out", "lies in the input"),
        ("link/out", "lies in the input"),
        ("out", "would lie in this folder"),
    ]
    for name, rule in cases:
        with pytest.raises(OutputError, match=rule) as caught:
            check_new_folder(tmp_path / name, [tmp_path / "in"], [tmp_path / "out" / "a.nii"])
        assert str(tmp_path / name) in str(caught.value)
    assert names(tmp_path) == ["file", "full", "in", "link"]
    assert names(tmp_path / "in") == []


def test_a_disk_and_a_folder_that_cannot_be_searched_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("os.path.ismount", lambda path: True)
        with pytest.raises(OutputError, match="root of a disk"):
            check_new_folder(tmp_path / "empty")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(OutputError, match="cannot be searched: Permission denied"):
        check_new_folder(tmp_path / "empty")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that refuses root")
def test_places_that_refuse_folders() -> None:
    with pytest.raises(OutputError, match="refuses new files"):
        check_new_folder("/proc/out")
    with pytest.raises(OutputError, match="could not be written"), atomic_folder("/proc/out"):
        pass
