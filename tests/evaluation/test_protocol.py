"""The loop over files and methods: with real phantoms once, with made-up cases for the rest."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from calid.baselines.registration import registration
from calid.baselines.rules import cubic, linear, nearest
from calid.data.phantom import HeartPhantom
from calid.errors import CalidWarning, DataError, InputError
from calid.evaluation.hidden_slices import hidden_slices
from calid.evaluation.protocol import (
    EXAMPLES,
    Case,
    Contender,
    Evaluation,
    Protocol,
    evaluate,
    kept_answer,
)
from calid.evaluation.tables import by_group, by_subject, markdown, summarise
from calid.inference.densify import densify
from calid.io import write_volume

TARGETS, SIDE = 3, 4


def noise(images, positions, targets, spacing):
    """Ignores its input."""
    shape = (len(targets), *images.shape[1:])
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("phantoms")
    files = [folder / "p201_ED.nii.gz", folder / "p202_ED.nii.gz"]
    for path, seed, gap in zip(files, (201, 202), (8.0, 10.0), strict=True):
        stack = HeartPhantom(seed).acquire(gap=gap, slices=5, start=10.0, field_of_view=96.0)
        write_volume(densify(stack, linear, 1), path)
    return files


@pytest.mark.slow
def test_a_method_that_ignores_its_input_comes_last_in_every_column(phantoms, tmp_path):
    protocol = hidden_slices(None)
    methods = (nearest, linear, cubic, registration, noise)
    contenders = [Contender(m.__name__, m, m.__name__) for m in methods]
    found = evaluate(protocol, phantoms, contenders, tmp_path, lambda done: None)
    results = by_subject(protocol, found.rows)
    facts = {"data": "phantoms", "n_images": found.targets, "seed": 0}
    summary = summarise(protocol, results, by_group(found.rows), facts)
    assert summary["n_subjects"] == 2
    assert summary["n_images"] == 4  # of 5 slices, 1 and 3 are hidden
    assert set(protocol.columns) == {"psnr", "ssim", "hfen", "sharpness"}

    def badness(metric: str, value: float) -> float:
        if metric == "sharpness":
            return abs(math.log(value))
        return value if metric in protocol.lower_is_better else -value

    for metric in protocol.columns:
        values = {m: badness(metric, f[metric]["mean"]) for m, f in summary["methods"].items()}
        assert max(values, key=values.__getitem__) == "noise", metric
        assert len(set(values.values())) == len(methods)
        for group, parts in summary["splits"].items():
            for part in parts.values():
                values = {m: badness(metric, f[metric]) for m, f in part["methods"].items()}
                assert max(values, key=values.__getitem__) == "noise", (group, metric)
    assert set(summary["splits"]["gap"]) == {"16 mm", "20 mm"}
    assert "| noise |" in markdown(summary)


def made_up(path: Path) -> Case:
    """A case whose number is in the file's name; its images have the number's brightness."""
    if "bad" in path.name:
        raise InputError(path, "This file is made up to be bad.", "Leave it out.")
    number = int(path.stem.split("-")[0][1:])
    images = np.full((1, TARGETS + 1, SIDE, SIDE), number / 16, np.float32)
    truth = np.arange(TARGETS, dtype=np.float32)[None, :, None, None] + images[:, :TARGETS]
    return Case(
        subject=f"s{number // 2}",
        name=path.stem,
        images=images,
        positions=10.0 * np.arange(TARGETS + 1),
        targets=10.0 * np.arange(TARGETS) + 5,
        truth=truth,
        spacing=(1.5, 1.5),
        groups={"place": ("low", "mid", "high")},
    )


def offset(case: Case, answer: NDArray[np.float32]) -> Mapping[str, NDArray[np.float64]]:
    """The error of every target, and the brightness of the answer."""
    error = (answer - case.truth)[0].mean((1, 2)).astype(np.float64)
    return {"error": error, "mean": np.array([float(answer.mean())])}


def protocol_of(**changes: object) -> Protocol:
    settings = {"name": "made up", "load": made_up, "score": offset, "columns": ("error",)}
    return Protocol(**(settings | {"headline": ("error",)} | changes))  # type: ignore[arg-type]


def constant(name: str, value: float) -> Contender:
    def method(images, positions, targets, spacing):
        return np.full((len(targets), *images.shape[1:]), value, np.float32)

    return Contender(name, method, f"{name} {value}")


def files(*names: str) -> list[Path]:
    return [Path("somewhere") / f"{name}.x" for name in names]


def run(
    paths: Sequence[Path], folder: Path, protocol: Protocol | None = None
) -> tuple[Evaluation, list[int]]:
    done: list[int] = []
    contenders = [constant("one", 1.0), constant("two", 2.0)]
    found = evaluate(protocol or protocol_of(), paths, contenders, folder, done.append)
    return found, done


def test_every_row_has_the_figures_of_its_method_on_its_case(tmp_path):
    found, _ = run(files("c0", "c4"), tmp_path)
    assert list(found.rows) == ["one", "two"]
    for method, value in (("one", 1.0), ("two", 2.0)):
        rows = found.rows[method]
        assert [r.case for r in rows] == ["c0", "c4"]
        assert [r.subject for r in rows] == ["s0", "s2"]
        assert [dict(r.groups) for r in rows] == [{"place": ("low", "mid", "high")}] * 2
        for row, brightness in zip(rows, (0.0, 0.25), strict=True):
            expected = value - brightness - np.arange(TARGETS)
            np.testing.assert_allclose(row.figures["error"], expected, atol=1e-6)
            assert row.figures["mean"] == pytest.approx([value])
    assert found.targets == 2 * TARGETS


def test_ceilings_are_appended_and_see_the_truth(tmp_path):
    ceilings = {"nearly": lambda case: case.truth + 0.5, "exact": lambda case: case.truth}
    found, done = run(files("c0", "c4"), tmp_path, protocol_of(ceilings=ceilings))
    assert list(found.rows) == list(found.answers) == ["one", "two", "nearly", "exact"]
    for name, error in (("nearly", 0.5), ("exact", 0.0)):
        for row in found.rows[name]:
            assert row.figures["error"] == pytest.approx([error] * TARGETS)
    assert done == list(range(1, 9))
    assert {p.name for p in tmp_path.iterdir()} == {"one", "two"}  # ceilings are not kept


def test_files_that_cannot_be_used_are_left_out_with_a_warning(tmp_path):
    with pytest.warns(CalidWarning, match="left out.*made up to be bad") as caught:
        found, _ = run(files("bad1", "c2", "bad2", "c3"), tmp_path)
    assert len(caught) == 2
    assert (
        [r.case for r in found.rows["one"]] == [r.case for r in found.rows["two"]] == ["c2", "c3"]
    )
    assert found.targets == 2 * TARGETS
    assert len(found.truths) == 2


def test_without_any_usable_file_there_is_nothing_to_evaluate(tmp_path):
    with (
        pytest.warns(CalidWarning, match="left out"),
        pytest.raises(DataError, match="made up to be bad"),
    ):
        run(files("bad1", "bad2"), tmp_path)
    with pytest.raises(DataError, match="there is none"):
        run([], tmp_path)


def test_other_errors_are_not_taken_for_bad_files(tmp_path):
    with pytest.raises(ValueError, match="invalid literal"):
        run(files("c0", "nonsense"), tmp_path)


def test_the_count_of_answers_ends_at_files_times_rows(tmp_path):
    _, done = run(files("c0", "c1", "c2"), tmp_path)
    assert done == [1, 2, 3, 4, 5, 6]
    with pytest.warns(CalidWarning, match="left out"):
        _, done = run(files("bad", "c1", "bad", "c2", "bad"), tmp_path)
    assert done[-1] == 10
    assert done == sorted(done)
    assert {3, 4, 7, 8} <= set(done)


def test_examples_are_targets_of_a_few_files_from_all_over(tmp_path):
    found, _ = run(files(*(f"c{i}" for i in range(9))), tmp_path)
    assert len(found.truths) == EXAMPLES == 2
    # 9 files, every fourth: brightness 0 and 4 sixteenths; lowest, middle and highest target.
    made_up_truths = [made_up(p).truth for p in files("c0", "c4")]
    for shown, truth in zip(found.truths, made_up_truths, strict=True):
        np.testing.assert_array_equal(shown, np.clip(truth, 0, 1))
    dim = protocol_of(ceilings={"dim": lambda case: case.truth - 1})
    found, _ = run(files("c0", "c8"), tmp_path, dim)
    assert [float(a[:, 1].mean()) for a in found.answers["dim"]] == [0.0, 0.5]
    assert [float(a.mean()) for a in found.answers["two"]] == [1.0, 1.0]  # clipped for display
    assert found.answers["dim"][0].shape == (1, TARGETS, SIDE, SIDE)


def test_there_are_examples_even_if_every_second_file_is_bad(tmp_path):
    names = [f"c{i}" if i % 2 else f"bad{i}" for i in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalidWarning)
        found, _ = run(files(*names), tmp_path)
    assert len(found.truths) == 2
    assert {len(a) for a in found.answers.values()} == {2}
    brightness = [float(a.mean()) for a in found.answers["one"]]
    assert brightness == [1.0] * 2


def test_two_stacks_of_one_name_are_not_taken_for_one(tmp_path):
    twice = [Path("here") / "c2.x", Path("there") / "c2.x"]
    with pytest.warns(CalidWarning, match=r"left out: there.c2\.x: There has been a c2"):
        found, _ = run(twice, tmp_path)
    assert [r.case for r in found.rows["one"]] == ["c2"]


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
    answer = kept_answer(entry(method), case, tmp_path)
    assert method.calls == 3
    assert answer.shape == (3, 2, 6, 7)
    assert answer.dtype == np.float32
    wanted = np.stack(
        [Counted()(i, case.positions, case.targets, case.spacing) for i in case.images]
    )
    np.testing.assert_array_equal(answer, wanted.astype(np.float16).astype(np.float32))


def test_a_kept_answer_is_found_again_whatever_the_truth(tmp_path):
    method, case, folder = Counted(), case_of(), tmp_path / "new" / "predictions"
    first = kept_answer(entry(method), case, folder)
    # A new process has the folder, and makes its cases anew.
    labels = np.ones(case.truth.shape, np.uint8)
    other = replace(case_of(), truth=1 - case.truth, truth_labels=labels)
    np.testing.assert_array_equal(kept_answer(entry(method), other, folder), first)
    assert method.calls == 2
    assert [p.parent.name for p in files_of(folder)] == ["m"]


def test_another_identity_is_another_answer(tmp_path):
    one, other, case = Counted(), Counted(), case_of()
    kept_answer(entry(one, "v1"), case, tmp_path)
    kept_answer(entry(other, "v2"), case, tmp_path)
    kept_answer(entry(other, "v1", "n"), case, tmp_path)
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
    kept_answer(entry(method), case_of(), tmp_path)
    answer = kept_answer(entry(method), changed, tmp_path)
    assert method.calls == 4
    fresh = kept_answer(entry(Counted()), changed, tmp_path / "fresh")
    np.testing.assert_array_equal(answer, fresh)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_computed_again(tmp_path, share):
    method, case = Counted(), case_of()
    answer = kept_answer(entry(method), case, tmp_path)
    (path,) = files_of(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    np.testing.assert_array_equal(kept_answer(entry(method), case, tmp_path), answer)
    assert method.calls == 4
    np.testing.assert_array_equal(kept_answer(entry(method), case, tmp_path), answer)
    assert method.calls == 4  # it was written anew, whole


def test_a_damaged_file_is_computed_again(tmp_path):
    method, case = Counted(), case_of()
    answer = kept_answer(entry(method), case, tmp_path)
    (path,) = files_of(tmp_path)
    whole = path.read_bytes()
    # Offsets into the compressed voxels: the checksum or the decompressor sees it.
    for place in range(60, len(whole) - 150, 23):
        path.write_bytes(whole[:place] + bytes(b ^ 0xFF for b in whole[place : place + 4])
                         + whole[place + 4 :])  # fmt: skip
        np.testing.assert_array_equal(kept_answer(entry(method), case, tmp_path), answer)
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
        return evaluate(protocol, files, contenders, folder, lambda done: None)

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
