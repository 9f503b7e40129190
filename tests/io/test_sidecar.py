from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from calid.errors import InputError
from calid.io.sidecar import sha256


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
