"""From figures of images to figures of subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from calid.evaluation.aggregate import by_group, by_subject
from calid.evaluation.protocol import Protocol, Row

NAN = math.nan


def protocol_of(combine=None) -> Protocol:
    def never(*_: object) -> None:
        raise AssertionError("no case is loaded or judged here")

    return Protocol("made up", never, never, ("psnr",), ("psnr",), combine=combine)  # type: ignore[arg-type]


def row(subject: str, case: str = "", groups: Mapping | None = None, **figures: list[float]) -> Row:
    arrays = {name: np.array(values, np.float64) for name, values in figures.items()}
    return Row(subject, case or subject, arrays, groups or {})


def test_subjects_are_means_over_all_images_of_all_their_stacks():
    rows = [
        row("a", "a_ED", psnr=[10, 11, 12], ssim=[0.5, 0.5, 0.5]),
        row("b", "b_ED", psnr=[30], ssim=[0.9]),
        row("a", "a_ES", psnr=[27], ssim=[0.1]),
    ]
    results = by_subject(protocol_of(), {"m": rows, "n": rows[:1]})
    assert results == {
        "m": {"a": {"psnr": 15.0, "ssim": pytest.approx(0.4)}, "b": {"psnr": 30.0, "ssim": 0.9}},
        "n": {"a": {"psnr": 11.0, "ssim": 0.5}},
    }
    assert all(type(v) is float for s in results["m"].values() for v in s.values())


def test_nan_is_left_out_of_means():
    rows = [
        row("a", "a_ED", psnr=[10, NAN], ssim=[NAN, NAN]),
        row("a", "a_ES", psnr=[20], ssim=[NAN]),
        row("b", psnr=[NAN], ssim=[NAN]),
    ]
    results = by_subject(protocol_of(), {"m": rows})["m"]
    assert list(results) == ["a"]  # nothing is known of b
    assert results["a"]["psnr"] == 15.0
    assert math.isnan(results["a"]["ssim"])


def test_infinity_is_left_out_as_well():
    # PSNR of an exact answer, sharpness of a blank truth: neither has a mean, nor is JSON.
    results = by_subject(protocol_of(), {"m": [row("a", psnr=[10, math.inf], hfen=[math.inf, 2])]})
    assert results["m"]["a"] == {"psnr": 10.0, "hfen": 2.0}


def test_further_figures_are_made_of_the_cases_of_a_subject():
    def spread(cases):
        assert all(name.startswith(("a", "b")) for name in cases)
        means = [float(f["psnr"].mean()) for _, f in sorted(cases.items())]
        return {"spread": means[-1] - means[0] if len(means) > 1 else NAN}

    rows = [row("a", "a_ED", psnr=[10]), row("b", "b_ED", psnr=[1, 3]), row("a", "a_ES", psnr=[13])]
    results = by_subject(protocol_of(spread), {"m": rows})["m"]
    assert results["a"] == {"psnr": 11.5, "spread": 3.0}
    assert results["b"]["psnr"] == 2.0
    assert math.isnan(results["b"]["spread"])


def test_groups_split_the_images_of_every_method():
    third = {"third": ("base", "mid", "apex")}
    rows = {
        name: [
            row("a", "a_ED", third, psnr=[1 + k, 2 + k, 3 + k]),
            row("a", "a_ES", third, psnr=[5 + k, 2 + k, NAN]),
            row("b", "b_ED", {"third": ("mid",)}, psnr=[9 + k]),
        ]
        for name, k in (("m", 0), ("n", 100))
    }
    splits = by_group(protocol_of(), rows)
    assert set(splits) == {"third"}
    assert list(splits["third"]) == ["base", "mid", "apex"]
    for name, k in (("m", 0), ("n", 100)):
        parts = {value: results[name] for value, results in splits["third"].items()}
        assert parts["base"] == {"a": {"psnr": 3.0 + k}}
        assert parts["apex"] == {"a": {"psnr": 3.0 + k}}
        assert parts["mid"] == {"a": {"psnr": 2.0 + k}, "b": {"psnr": 9.0 + k}}


def test_a_group_with_one_value_is_left_out():
    groups = {"gap": ("20 mm", "20 mm"), "third": ("base", "mid")}
    splits = by_group(protocol_of(), {"m": [row("a", groups=groups, psnr=[1, 2])]})
    assert set(splits) == {"third"}
    assert by_group(protocol_of(), {"m": [row("a", psnr=[1, 2])]}) == {}


def test_figures_of_whole_cases_are_not_split():
    groups = {"third": ("base", "mid")}
    rows = [
        row("a", "a_ED", groups, psnr=[1, 2], dice=[0.5]),
        # One image only: its figure of the whole case looks like one of an image.
        row("a", "a_ES", {"third": ("mid",)}, psnr=[4], dice=[0.7]),
    ]
    splits = by_group(protocol_of(), {"m": rows})
    assert splits["third"]["base"]["m"] == {"a": {"psnr": 1.0}}
    assert splits["third"]["mid"]["m"] == {"a": {"psnr": 3.0}}


def test_a_group_that_splits_no_metric_is_left_out():
    groups = {"third": ("base", "mid")}
    rows = [row("a", "a_ED", groups, dice=[0.5]), row("a", "a_ES", {"third": ("mid",)}, dice=[0.7])]
    assert by_group(protocol_of(), {"m": rows}) == {}


def test_cases_without_a_group_are_left_out_of_its_split():
    rows = [
        row("a", groups={"gap": ("16 mm", "20 mm")}, psnr=[1, 2]),
        row("b", psnr=[5, 6]),
    ]
    splits = by_group(protocol_of(), {"m": rows})
    assert splits["gap"] == {
        "16 mm": {"m": {"a": {"psnr": 1.0}}},
        "20 mm": {"m": {"a": {"psnr": 2.0}}},
    }
