"""Half a file never stands under the final name."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from calid.errors import InputError, OutputError
from calid.io.atomic import LEFTOVER_AGE, atomic, check_folder, check_output, make_folder
from calid.io.sidecar import sha256, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    for content in (b"one", b"two"):
        with atomic(target) as file:
            file.write(content)
            assert not target.exists() or target.read_bytes() == b"one"
        assert target.read_bytes() == content
    assert names(tmp_path) == ["a.bin"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic(tmp_path / "a.bin") as file:
            file.write(b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_any_exception_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def interrupted() -> None:
        with atomic(target) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert (names(tmp_path), target.read_bytes()) == (["a.bin"], b"old")


@pytest.mark.parametrize("step", ["os.fsync", "Path.replace"])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    monkeypatch.setattr(f"calid.io.atomic.{step}", full)
    with pytest.raises(OutputError, match=r"a\.bin.*No space left.*unchanged"), atomic(target) as f:
        f.write(b"half")
    assert (names(tmp_path), target.read_bytes()) == (["a.bin"], b"old")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_while_writing(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    code = (
        "import os, signal, sys\n"
        "from calid.io.atomic import atomic\n"
        "with atomic(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    assert all(name == "a.bin" or name.endswith(".part") for name in names(tmp_path))


def test_leftovers_of_killed_runs_are_removed_and_those_of_live_ones_kept(tmp_path: Path) -> None:
    ages = {".calid-old.part": LEFTOVER_AGE + 60, ".calid-new.part": 0, "old.part": 10**6}
    for name, age in ages.items():
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with atomic(tmp_path / "a.bin") as file:
        file.write(b"x")
    assert names(tmp_path) == [".calid-new.part", "a.bin", "old.part"]


def test_a_folder_of_a_killed_run_is_removed_as_well(tmp_path: Path) -> None:
    left = tmp_path / ".calid-old.part"
    left.mkdir()
    (left / "half").write_bytes(b"x")
    os.utime(left, (time.time() - LEFTOVER_AGE - 60,) * 2)
    with atomic(tmp_path / "a.bin") as file:
        file.write(b"x")
    assert names(tmp_path) == ["a.bin"]


def test_folders_are_made_with_those_above_unless_a_file_stands_there(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot be made"):
            make_folder(path)


def test_check_folder_makes_nothing_and_refuses_files(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    check_folder(tmp_path)
    assert names(tmp_path) == []
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="is a file, not a folder"):
            check_folder(path)


def test_links_are_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real.bin", tmp_path / "link.bin"
    link.symlink_to(real)
    with atomic(link) as file:
        file.write(b"x")
    assert link.is_symlink()
    assert real.read_bytes() == b"x"


def test_check_output_accepts(tmp_path: Path) -> None:
    (tmp_path / "in.nii").write_bytes(b"x")
    out = tmp_path / "OUT.NII.GZ"
    check_output(out, [tmp_path / "in.nii"], (".nii.gz",))
    check_output(str(out))
    assert names(tmp_path) == ["in.nii"]


def test_check_output_refuses(tmp_path: Path) -> None:
    source = tmp_path / "in.nii"
    source.write_bytes(b"x")
    hard, soft = tmp_path / "hard.nii", tmp_path / "soft.nii"
    hard.hardlink_to(source)
    soft.symlink_to(source)
    before = names(tmp_path)
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


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that refuses root")
def test_folder_that_refuses_files() -> None:
    with pytest.raises(OutputError, match="refuses new files"):
        check_output("/proc/out.nii")
    with pytest.raises(OutputError, match="refuses new files"):
        check_folder("/proc/out/below")
    with pytest.raises(OutputError, match="could not be written"), atomic("/proc/out.nii"):
        pass


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
    assert names(tmp_path) == ["a.json"]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")
    with pytest.raises(InputError, match="cannot be read"):
        sha256(tmp_path / "b")
