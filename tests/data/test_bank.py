from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from nifti_files import save as save_nifti

from calid.data import bank
from calid.data.bank import (
    TrainingFilm,
    hide_alternate,
    load_bank,
    split_subjects,
    subject_of,
    to_film,
)
from calid.errors import CalidError, DataError, InputError
from calid.geometry.affine import from_spacing
from calid.stack import SliceStack


def write(path: Path, seed: int = 0, shape: tuple[int, ...] = (20, 24, 4, 2)) -> Path:
    """A NIfTI stack with a sound header, axes (column, row, slice, frame)."""
    data = np.random.default_rng(seed).integers(0, 300, shape).astype("i2")
    return save_nifti(path, data, from_spacing((1.5, 3.0, 8.0)))


def assert_same(one: list[TrainingFilm], other: list[TrainingFilm]) -> None:
    assert [f.subject for f in one] == [f.subject for f in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)
        np.testing.assert_array_equal(a.positions, b.positions)
        assert a.frames.dtype == b.frames.dtype == np.uint8
        assert a.positions.dtype == b.positions.dtype == np.float64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data" / "p2_ES.nii.gz", 2)
    write(tmp_path / "data" / "deep" / "p1_ED.nii", 1)
    return tmp_path / "data"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths that were really read, not taken from the cache."""
    seen: list[Path] = []
    original = bank.read

    def spy(path: Path) -> SliceStack:
        seen.append(path)
        return original(path)

    monkeypatch.setattr(bank, "read", spy)
    return seen


def test_stacks_become_films_in_order(folder: Path, tmp_path: Path) -> None:
    films = load_bank([folder], tmp_path / "bank.safetensors")
    assert [f.subject for f in films] == ["p1", "p2"]
    for film in films:
        # 24 rows of 3 mm are 48 of 1.5 mm; 20 columns stay.
        assert film.frames.shape == (2, 4, 48, 20)
        np.testing.assert_array_equal(film.positions, [0, 8, 16, 24])
    assert not np.array_equal(films[0].frames, films[1].frames)


def test_the_second_time_films_come_from_the_cache(
    folder: Path, tmp_path: Path, reads: list[Path]
) -> None:
    cache = tmp_path / "new" / "folder" / "bank.safetensors"
    first = load_bank([folder], cache)
    assert len(reads) == 2
    written = cache.read_bytes()
    second = load_bank([folder], cache)
    assert len(reads) == 2, "nothing was read again"
    assert cache.read_bytes() == written
    assert_same(first, second)


@pytest.mark.parametrize("change", ["rewrite", "touch", "add", "remove", "extra"])
def test_the_cache_is_rewritten_when_anything_changes(
    folder: Path, tmp_path: Path, reads: list[Path], change: str
) -> None:
    cache = tmp_path / "bank.safetensors"
    before = load_bank([folder], cache)
    reads.clear()
    target, key = folder / "deep" / "p1_ED.nii", ""
    if change == "rewrite":
        write(target, 9)
    elif change == "touch":
        os.utime(target, ns=(1, 1))
    elif change == "add":
        write(folder / "p3_ED.nii.gz", 3)
    elif change == "remove":
        target.unlink()
    else:
        key = "phantoms=1"
    after = load_bank([folder], cache, extra_key=key)
    assert len(reads) == {"add": 3, "remove": 1}.get(change, 2)
    assert len(after) == len(reads)
    if change == "rewrite":
        assert not np.array_equal(after[0].frames, before[0].frames)
    assert_same(after, load_bank([folder], cache, extra_key=key))


@pytest.mark.parametrize("size", [0, 100])
def test_a_damaged_cache_is_written_again(folder: Path, tmp_path: Path, size: int) -> None:
    cache = tmp_path / "bank.safetensors"
    before = load_bank([folder], cache)
    cache.write_bytes(cache.read_bytes()[:size])
    assert_same(before, load_bank([folder], cache))


def test_extra_films_are_added_and_cached(folder: Path, tmp_path: Path) -> None:
    frames = np.arange(2 * 3 * 16 * 16, dtype=np.int64).reshape(2, 3, 16, 16) % 255
    extra = TrainingFilm("phantom0", frames.astype(np.uint8), np.array([0.0, 5.0, 11.0]))
    cache = tmp_path / "bank.safetensors"
    first = load_bank([folder], cache, iter([extra]), "phantoms=1")
    assert [f.subject for f in first] == ["p1", "p2", "phantom0"]
    assert_same(first[2:], [extra])
    assert_same(first, load_bank([folder], cache, iter([]), "phantoms=1"))


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("data/p1_ED.nii.gz", "p1"),
        ("data/p1_ED.NII", "p1"),
        ("data/p1.nii", "p1"),
        ("exams/first_person", "first_person"),
        ("exams/first_person.zip", "first_person"),
        ("phantoms/1000", "1000"),
    ],
)
def test_files_of_a_subject_share_a_name(path: str, subject: str) -> None:
    assert subject_of(Path(path)) == subject


def test_a_broken_file_is_reported_and_the_rest_is_used(folder: Path, tmp_path: Path) -> None:
    broken = folder / "p0_ED.nii.gz"
    broken.write_bytes((folder / "p2_ES.nii.gz").read_bytes()[:300])
    flat = write(folder / "p5_ED.nii", shape=(20, 24, 1))
    tiny = write(folder / "p6_ED.nii", shape=(20, 4, 4))  # smaller than a crop
    told: dict[Path, CalidError] = {}
    films = load_bank(
        [folder], tmp_path / "bank.safetensors", on_skip=lambda p, e: told.update({p: e})
    )
    assert [f.subject for f in films] == ["p1", "p2"]
    assert set(told) == {broken, flat, tiny}
    assert isinstance(told[broken], InputError)
    assert "at least 2 slices" in str(told[flat])
    assert "16 or more" in str(told[tiny])


def test_a_folder_without_a_stack_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    cache = tmp_path / "bank.safetensors"
    with pytest.raises(DataError, match="holds no NIfTI stack"):
        load_bank([tmp_path / "data"], cache)
    (tmp_path / "data" / "a.nii").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="None of the files could be used"):
        load_bank([tmp_path / "data"], cache)
    assert not cache.exists()


def test_several_folders_make_one_bank(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "more" / "q1.nii.gz", 5)
    films = load_bank([folder, tmp_path / "more"], tmp_path / "bank.safetensors")
    assert [f.subject for f in films] == ["p1", "p2", "q1"]


def test_splits_are_stable_and_by_subject() -> None:
    names = [f"patient{i:03d}" for i in range(1000)]
    held_out = split_subjects(names)
    assert held_out == split_subjects(reversed(names)) == split_subjects(names * 2)
    assert 70 < len(held_out) < 130
    # A subject's side depends on its own name, not on who else is there.
    assert split_subjects(names[:500]) == held_out & set(names[:500])
    assert split_subjects(names, share=0.0) == set()
    assert split_subjects(names, share=1.0) == set(names)
    assert held_out < split_subjects(names, share=0.2)


def stack_of(data: np.ndarray, spacing: float) -> SliceStack:
    frames, slices = data.shape[:2]
    return SliceStack(
        data, from_spacing((spacing, spacing, 8.0)), 8.0 * np.arange(slices), 8.0,
        0.03 * np.arange(frames),
    )  # fmt: skip


def test_codes_are_window_values_times_170() -> None:
    data = np.full((1, 2, 40, 40), 100.0)
    data[..., :20] = 50.0
    data[0, 0, 0, :2] = -1000.0, 1000.0  # below the half percent that the window leaves out
    film = to_film(stack_of(data, 1.5), "s")
    assert film.frames[0, 1, 5, 5] == 0
    assert film.frames[0, 1, 5, 30] == 170
    assert film.frames[0, 0, 0, :2].tolist() == [0, 255]


def test_films_are_on_the_networks_grid() -> None:
    ramp = np.broadcast_to(np.arange(60.0), (1, 2, 44, 60))
    film = to_film(stack_of(ramp, 3.0), "s")
    assert film.frames.shape == (1, 2, 88, 120)
    inner = film.frames[0, 0, 40, 10:-10].astype(float)
    assert np.diff(inner).mean() == pytest.approx(170 * 0.5 / 59, rel=0.02)


@pytest.mark.parametrize("slices", range(1, 14))
def test_the_benchmark_never_hides_an_end_slice(slices: int) -> None:
    kept, hidden = hide_alternate(slices)
    assert kept.tolist() == list(range(0, slices, 2))
    assert 0 not in hidden
    assert slices - 1 not in hidden
    assert all(h - 1 in kept and h + 1 in kept for h in hidden)
    assert len(hidden) == max(0, (slices - 1) // 2)
