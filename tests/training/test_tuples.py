"""The cache of training tuples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from calid.data.bank import TrainingFilm
from calid.errors import DataError, OutputError
from calid.models.motion import Frames
from calid.training import tuples as tuples_module
from calid.training.tuples import (
    NARROW,
    TENSORS,
    TupleConfig,
    Tuples,
    build_films,
    build_tuples,
    film_tuples,
    is_film,
    validation_tuples,
)

CONFIG = TupleConfig(draws=2, size=32, frames=2)


def film(name: str, slices: int, gap: float, seed: int = 0) -> TrainingFilm:
    """Every slice has a level of its own, so that it can be told from others."""
    level = np.linspace(20, 150, slices)[:, None, None]
    noise = np.random.default_rng(seed).uniform(0, 3, (2, slices, 40, 40))
    return TrainingFilm(name, (level + noise).astype(np.uint8), gap * np.arange(slices))


FILMS = [film("a", 9, 5.0), film("b", 7, 10.0, 1), film("c", 2, 10.0, 2)]


def encode(images: Tensor) -> Tensor:
    """Means of 4 x 4 pixels, and a second channel of another unit."""
    small = F.avg_pool2d(images, 4)
    return torch.cat([small, 10 * small], 1)


def built(folder: Path, config: TupleConfig = CONFIG, encoder: str = "one") -> Tuples:
    return build_tuples(FILMS, encode, encoder, folder, config)


def same(one: Tuples, other: Tuples) -> bool:
    equal = (torch.equal(getattr(one, n), getattr(other, n)) for n in TENSORS)
    return one.frames == other.frames and all(equal)


def test_targets_lie_between_their_neighbours_in_gaps_of_useful_width(tmp_path: Path) -> None:
    tuples = built(tmp_path)
    below, above, next_below, next_above = tuples.distance.unbind(1)
    assert (below < 0).all()
    assert (above > 0).all()
    assert ((tuples.gap >= 6) & (tuples.gap <= 42)).all()
    for near, far, index in ((below, next_below, 3), (above, next_above, 4)):
        there = tuples.index[:, index] >= 0
        torch.testing.assert_close(far[there].abs(), (near.abs() + tuples.gap)[there])
        assert not far[~there].any()
    assert 0 < float((tuples.index[:, 3] >= 0).float().mean()) < 1


def test_a_third_has_the_gaps_of_a_clinical_exam(tmp_path: Path) -> None:
    gap = built(tmp_path).gap
    narrow = float(((gap >= NARROW[0]) & (gap <= NARROW[1])).float().mean())
    assert 0.33 < narrow < 0.5
    assert len(gap.unique()) > 3


def test_a_batch_holds_the_slices_that_the_index_says(tmp_path: Path) -> None:
    tuples = built(tmp_path)
    picks = torch.arange(len(tuples))
    truth, seen = tuples.batch(picks, torch.device("cpu"))
    assert truth.dtype == torch.float32
    level = [x.mean((-3, -2, -1)) for x in (seen.adjacent[:, 0], truth, seen.adjacent[:, 1])]
    rising = level[2] > level[0]
    for low, high in ((level[0], level[1]), (level[1], level[2])):
        assert ((low < high) == rising).all()
    absent = tuples.index[:, 3:] < 0
    assert not seen.beyond[absent].any()
    assert seen.beyond[~absent].any()
    # Registration moves pixels about and leaves which slice it was to be seen.
    arrived, there = (x.mean((-3, -2, -1)).flatten().numpy() for x in (seen.moved, seen.adjacent))
    assert np.corrcoef(arrived, there)[0, 1] > 0.97


def test_a_build_that_was_stopped_goes_on_and_another_process_makes_the_same(
    tmp_path: Path,
) -> None:
    done: list[tuple[int, bool]] = []

    def stop(count: int, made: bool) -> None:
        raise KeyboardInterrupt

    def note(count: int, made: bool) -> None:
        done.append((count, made))

    with pytest.raises(KeyboardInterrupt):
        build_tuples(FILMS, encode, "one", tmp_path / "a", CONFIG, stop)
    first = next((tmp_path / "a").iterdir())
    written = first.stat().st_mtime_ns
    again = build_tuples(FILMS, encode, "one", tmp_path / "a", CONFIG, note)
    assert done == [(1, False), (2, True)], "the first was there"
    assert first.stat().st_mtime_ns == written
    assert same(again, built(tmp_path / "b"))
    more = built(tmp_path / "a", dataclasses.replace(CONFIG, draws=3))
    assert len(more) > len(again), "more draws keep those that are there"


@pytest.mark.parametrize("change", ["encoder", "config", "films"])
def test_a_cache_of_something_else_is_refused(tmp_path: Path, change: str) -> None:
    built(tmp_path)
    config = dataclasses.replace(CONFIG, size=16) if change == "config" else CONFIG
    films = FILMS[:1] if change == "films" else FILMS
    with pytest.raises(DataError, match="made of other data or weights"):
        build_tuples(films, encode, "two" if change == "encoder" else "one", tmp_path, config)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_cache_is_an_error_that_names_the_file(tmp_path: Path, keep: float) -> None:
    built(tmp_path)
    path = sorted(tmp_path.iterdir())[1]
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(DataError, match=path.name):
        built(tmp_path)
    path.unlink()
    assert len(built(tmp_path))


def test_a_full_disk_leaves_no_half_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("calid.training.tuples.save", full)
        with pytest.raises(OutputError, match="No space left"):
            built(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_stacks_without_two_neighbours_are_no_tuples(tmp_path: Path) -> None:
    for make in (
        lambda: build_tuples(FILMS[2:], encode, "one", tmp_path, CONFIG),
        lambda: validation_tuples(FILMS[2:], encode, 32),
    ):
        with pytest.raises(DataError, match="at least 3 slices"):
            make()


def test_validation_hides_every_inner_slice_as_it_is() -> None:
    tuples = validation_tuples(FILMS, encode, 32)
    assert len(tuples) == 7 + 5
    assert sorted(tuples.gap.unique().tolist()) == [10, 20]
    centre = torch.from_numpy(FILMS[0].frames[0, 3, 4:36, 4:36]).float()[None, None] / 170
    truth, _ = tuples.batch(torch.tensor([2]), torch.device("cpu"))
    torch.testing.assert_close(truth, encode(centre), rtol=2e-3, atol=1e-3)


def beating(name: str, frames: int, slices: int, seed: int = 0) -> TrainingFilm:
    """A disc whose radius follows the beat."""
    rows, columns = np.mgrid[:40, :40] - 20.0
    phase = 2 * np.pi * np.arange(frames)[:, None, None, None] / frames
    radius = 9 + 3 * np.cos(phase) - 0.5 * np.arange(slices)[:, None, None]
    noise = np.random.default_rng(seed).uniform(0, 8, (frames, slices, 40, 40))
    images = 30 + 120 / (1 + np.exp(np.hypot(rows, columns) - radius)) + noise
    return TrainingFilm(name, images.astype(np.uint8), 10.0 * np.arange(slices))


BEATING = [beating("x", 8, 6), beating("y", 7, 5, 1)]


def test_films_are_tuples_of_all_frames_in_one_crop_that_know_each_other(tmp_path: Path) -> None:
    films = build_films(BEATING, encode, "one", tmp_path, CONFIG)
    assert [film.frames for film in films] == [Frames(n) for n in (8, 7, 8, 7)]
    for film in films:
        index, distance = (
            x.unflatten(0, (film.frames.count, -1)) for x in (film.index, film.distance)
        )
        slices = len(film.latents) // film.frames.count
        # The same targets and neighbours in every frame.
        within = torch.where(index < 0, index, index % slices)
        assert (within == within[:1]).all()
        assert (distance == distance[:1]).all()
        frame = torch.arange(film.frames.count)[:, None, None].expand_as(index)
        assert (index // slices == frame)[index >= 0].all()
    again = build_films(BEATING, encode, "one", tmp_path, CONFIG)
    assert all(same(a, b) for a, b in zip(films, again, strict=True))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Frames]:
    """The frames of every registration."""
    seen: list[Frames] = []
    original = tuples_module.register

    def watched(pair: Tensor, distance: Tensor, gate: Tensor, frames: Frames) -> Tensor:
        seen.append(frames)
        return original(pair, distance, gate, frames)

    monkeypatch.setattr(tuples_module, "register", watched)
    return seen


def test_frames_of_a_film_are_registered_together(seen: list[Frames]) -> None:
    film = film_tuples(BEATING[0], encode, 32)
    assert seen == [Frames(8)]
    assert len(film) == 8 * 4
    first = validation_tuples(BEATING[:1], encode, 32)
    torch.testing.assert_close(film.latents[:6], first.latents)


def test_a_film_cut_short_is_taken_as_cut_short(seen: list[Frames]) -> None:
    half = dataclasses.replace(beating("z", 16, 4), frames=beating("z", 16, 4).frames[:8])
    assert film_tuples(half, encode, 32).frames == Frames(8, periodic=False)
    assert seen == [Frames(8, periodic=False)]


@pytest.mark.parametrize(("frames", "slices", "fits"), [(8, 3, True), (5, 9, False), (9, 2, False)])
def test_films_have_frames_to_mix_and_slices_to_hide(frames: int, slices: int, fits: bool) -> None:
    assert is_film(beating("x", frames, slices)) is fits


def test_films_of_other_data_are_refused(tmp_path: Path) -> None:
    build_films(BEATING, encode, "one", tmp_path, CONFIG)
    with pytest.raises(DataError, match="made of other data or weights"):
        build_films(BEATING[:1], encode, "one", tmp_path, CONFIG)
