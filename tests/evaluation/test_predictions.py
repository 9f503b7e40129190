"""Answers on disk: found again, told apart, and computed again when damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calid.evaluation.case import Case
from calid.evaluation.contender import Contender
from calid.evaluation.predictions import Predictions
from calid.evaluation.protocol import Protocol, evaluate


class Counted:
    """A method that remembers how often it was asked, and breaks down when told to."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.calls, self.breaks_at = 0, breaks_at

    def __call__(self, images, positions, targets, spacing):
        self.calls += 1
        if self.calls == self.breaks_at:
            raise KeyboardInterrupt
        # Depends on everything it is given.
        scale = float(images.mean() + positions[-1] / 100 + spacing[0] / 10)
        return np.repeat(images[:1], len(targets), 0) * scale + targets[:, None, None] / 100


def case_of(seed: int = 0, frames: int = 2, name: str = "p1_ED") -> Case:
    rng = np.random.default_rng(seed)
    return Case(
        subject="p1",
        name=name,
        images=rng.random((frames, 3, 6, 7), dtype=np.float32),
        positions=np.array([0.0, 10.0, 20.0]),
        targets=np.array([5.0, 15.0]),
        truth=rng.random((frames, 2, 6, 7), dtype=np.float32),
        spacing=(1.5, 1.4),
    )


def entry(method: Counted, identity: str = "v1", name: str = "m") -> Contender:
    return Contender(name, method, identity)


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_an_answer_is_that_of_the_method_frame_by_frame_in_half_precision(tmp_path):
    method, case = Counted(), case_of(frames=3)
    answer = Predictions(tmp_path).of(entry(method), case)
    assert method.calls == 3
    assert answer.shape == (3, 2, 6, 7)
    assert answer.dtype == np.float32
    wanted = np.stack(
        [Counted()(i, case.positions, case.targets, case.spacing) for i in case.images]
    )
    np.testing.assert_array_equal(answer, wanted.astype(np.float16).astype(np.float32))


def test_a_kept_answer_is_found_again(tmp_path):
    method, case = Counted(), case_of()
    first = Predictions(tmp_path).of(entry(method), case)
    # A new process has the folder, and makes its cases anew.
    again = Predictions(tmp_path).of(entry(method), case_of())
    assert method.calls == 2
    np.testing.assert_array_equal(first, again)
    assert [p.parent.name for p in files_of(tmp_path)] == ["m"]


def test_the_folder_is_made_only_when_there_is_an_answer_to_keep(tmp_path):
    predictions = Predictions(tmp_path / "new" / "predictions")
    assert not (tmp_path / "new").exists()
    predictions.of(entry(Counted()), case_of())
    assert len(files_of(tmp_path / "new")) == 1


def test_another_identity_is_another_answer(tmp_path):
    one, other, case = Counted(), Counted(), case_of()
    Predictions(tmp_path).of(entry(one, "v1"), case)
    Predictions(tmp_path).of(entry(other, "v2"), case)
    Predictions(tmp_path).of(entry(other, "v1", "n"), case)
    assert one.calls == 2
    assert other.calls == 4
    assert len(files_of(tmp_path)) == 3


CHANGES = {
    "images": case_of(1).images,
    "images' shape": case_of().images.reshape(2, 3, 7, 6),
    "positions": np.array([0.0, 10.0, 20.5]),
    "targets": np.array([5.0, 14.0]),
    "spacing": (1.4, 1.5),
    "name": "p1_ES",
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_case_is_another_answer(tmp_path, what):
    changed = replace(case_of(), **{what.split("'")[0]: CHANGES[what]})
    method = Counted()
    Predictions(tmp_path).of(entry(method), case_of())
    answer = Predictions(tmp_path).of(entry(method), changed)
    assert method.calls == 4
    fresh = Predictions(tmp_path / "fresh").of(entry(Counted()), changed)
    np.testing.assert_array_equal(answer, fresh)


def test_the_truth_does_not_change_an_answer(tmp_path):
    method, case = Counted(), case_of()
    Predictions(tmp_path).of(entry(method), case)
    labels = np.ones(case.truth.shape, np.uint8)
    Predictions(tmp_path).of(
        entry(method), replace(case, truth=1 - case.truth, truth_labels=labels)
    )
    assert method.calls == 2


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_computed_again(tmp_path, share):
    method, case = Counted(), case_of()
    answer = Predictions(tmp_path).of(entry(method), case)
    (path,) = files_of(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    np.testing.assert_array_equal(Predictions(tmp_path).of(entry(method), case), answer)
    assert method.calls == 4
    np.testing.assert_array_equal(Predictions(tmp_path).of(entry(method), case), answer)
    assert method.calls == 4  # it was written anew, whole


def test_a_damaged_file_is_computed_again(tmp_path):
    method, case = Counted(), case_of()
    answer = Predictions(tmp_path).of(entry(method), case)
    (path,) = files_of(tmp_path)
    whole = path.read_bytes()
    # Offsets into the compressed voxels: the checksum or the decompressor sees it.
    for place in range(60, len(whole) - 150, 23):
        path.write_bytes(whole[:place] + bytes(b ^ 0xFF for b in whole[place : place + 4])
                         + whole[place + 4 :])  # fmt: skip
        np.testing.assert_array_equal(Predictions(tmp_path).of(entry(method), case), answer)
    assert method.calls > 2


def test_an_evaluation_that_was_cut_off_goes_on_without_repeating_answers(tmp_path):
    names = ["a", "b", "c"]
    protocol = Protocol(
        name="made up",
        load=lambda path: case_of(names.index(path.name), frames=1, name=path.name),
        score=lambda case, answer: {"mean": np.array([float(answer.mean())])},
        columns=("mean",),
        headline=("mean",),
    )
    files = [Path(n) for n in names]

    def run(first: Counted, second: Counted, folder: Path):
        contenders = [entry(first, name="first"), entry(second, name="second")]
        return evaluate(protocol, files, contenders, Predictions(folder), lambda done: None)

    first, second = Counted(), Counted(breaks_at=2)
    with pytest.raises(KeyboardInterrupt):
        run(first, second, tmp_path / "cut")
    assert (first.calls, second.calls) == (2, 2)  # a by both, b by the first
    assert len(files_of(tmp_path / "cut")) == 3  # nothing half done
    found = run(first, second, tmp_path / "cut")
    assert (first.calls, second.calls) == (3, 4)  # c by both, b by the second again
    whole = run(Counted(), Counted(), tmp_path / "whole")
    for name, rows in whole.rows.items():
        assert [r.figures["mean"] for r in rows] == [r.figures["mean"] for r in found.rows[name]]
    run(first, second, tmp_path / "cut")
    assert (first.calls, second.calls) == (3, 4)
