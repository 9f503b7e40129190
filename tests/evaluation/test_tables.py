"""From figures of images to figures of subjects, to summaries, and to three files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping

import numpy as np
import pytest

from calid.evaluation.protocol import Protocol, Row
from calid.evaluation.tables import (
    bootstrap,
    by_group,
    by_subject,
    markdown,
    summarise,
    write_results,
)

NAN = math.nan
FACTS = {"data": "some/data", "n_images": 12, "seed": 3}


def protocol_of(**changes: object) -> Protocol:
    def never(*_: object) -> None:
        raise AssertionError("no case is loaded or judged here")

    settings = {
        "name": "made up",
        "load": never,
        "score": never,
        "columns": ("psnr", "ssim", "absent"),
        "headline": ("psnr", "ssim"),
    }
    return Protocol(**(settings | changes))  # type: ignore[arg-type]


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


def test_figures_that_are_not_finite_are_left_out_of_means():
    # Infinite are the PSNR of an exact answer and the sharpness of a blank truth.
    rows = [
        row("a", "a_ED", psnr=[10, NAN, math.inf], ssim=[NAN, NAN, NAN]),
        row("a", "a_ES", psnr=[20], ssim=[NAN]),
        row("b", psnr=[NAN], ssim=[NAN]),
    ]
    results = by_subject(protocol_of(), {"m": rows})["m"]
    assert list(results) == ["a"]  # nothing is known of b
    assert results["a"]["psnr"] == 15.0
    assert math.isnan(results["a"]["ssim"])


def test_further_figures_are_made_of_the_cases_of_a_subject():
    def spread(cases):
        assert all(name.startswith(("a", "b")) for name in cases)
        means = [float(f["psnr"].mean()) for _, f in sorted(cases.items())]
        return {"spread": means[-1] - means[0] if len(means) > 1 else NAN}

    rows = [row("a", "a_ED", psnr=[10]), row("b", "b_ED", psnr=[1, 3]), row("a", "a_ES", psnr=[13])]
    results = by_subject(protocol_of(combine=spread), {"m": rows})["m"]
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
    splits = by_group(rows)
    assert set(splits) == {"third"}
    assert list(splits["third"]) == ["base", "mid", "apex"]
    for name, k in (("m", 0), ("n", 100)):
        parts = {value: results[name] for value, results in splits["third"].items()}
        assert parts["base"] == {"a": {"psnr": 3.0 + k}}
        assert parts["apex"] == {"a": {"psnr": 3.0 + k}}
        assert parts["mid"] == {"a": {"psnr": 2.0 + k}, "b": {"psnr": 9.0 + k}}


def test_a_group_with_one_value_is_left_out():
    groups = {"gap": ("20 mm", "20 mm"), "third": ("base", "mid")}
    splits = by_group({"m": [row("a", groups=groups, psnr=[1, 2])]})
    assert set(splits) == {"third"}
    assert by_group({"m": [row("a", psnr=[1, 2])]}) == {}


def test_figures_of_whole_cases_are_not_split():
    groups = {"third": ("base", "mid")}
    rows = [
        row("a", "a_ED", groups, psnr=[1, 2], dice=[0.5]),
        # One image only: its figure of the whole case looks like one of an image.
        row("a", "a_ES", {"third": ("mid",)}, psnr=[4], dice=[0.7]),
    ]
    splits = by_group({"m": rows})
    assert splits["third"]["base"]["m"] == {"a": {"psnr": 1.0}}
    assert splits["third"]["mid"]["m"] == {"a": {"psnr": 3.0}}
    alone = [row(r.subject, r.case, r.groups, dice=list(r.figures["dice"])) for r in rows]
    assert by_group({"m": alone}) == {}


def test_cases_without_a_group_are_left_out_of_its_split():
    rows = [
        row("a", groups={"gap": ("16 mm", "20 mm")}, psnr=[1, 2]),
        row("b", psnr=[5, 6]),
    ]
    splits = by_group({"m": rows})
    assert splits["gap"] == {
        "16 mm": {"m": {"a": {"psnr": 1.0}}},
        "20 mm": {"m": {"a": {"psnr": 2.0}}},
    }


CEILING = {"autoencoder": lambda case: case.truth, "real slice": lambda case: case.truth}

RESULTS = {
    "linear": {"a": {"psnr": 10.0, "ssim": 0.1}, "b": {"psnr": 20.0, "ssim": 0.5}},
    "better": {"a": {"psnr": 11.0, "ssim": 0.2}, "b": {"psnr": 21.0, "ssim": 0.6}},
}

SPLITS = {
    "third": {
        "base": {
            "linear": {"a": {"psnr": 9.0}, "b": {"psnr": 1.25}},
            "better": {"b": {"psnr": 1.5}},
        },
        "apex": {"linear": {"a": {"psnr": NAN}}, "better": {"a": {"psnr": 2.0}}},
    }
}


def cells(line: str) -> list[str]:
    return [c.strip() for c in line.strip("|").split("|")]


def table_of(text: str, start: int = 2) -> dict[str, dict[str, str]]:
    """Method to column to cell of the table that starts at a line."""
    lines = text.splitlines()[start:]
    lines = lines[: lines.index("")] if "" in lines else lines
    head = cells(lines[0])
    assert lines[1] == "|---" * len(head) + "|"
    rows = [cells(line) for line in lines[2:]]
    assert all(len(r) == len(head) for r in rows)
    return {r[0]: dict(zip(head[1:], r[1:], strict=True)) for r in rows}


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        interval = bootstrap(generator.normal(3.0, 1.0, 40), draws=500)
        hits += interval["low"] <= 3.0 <= interval["high"]
    assert 175 <= hits <= 199


def test_the_bootstrap_is_the_same_every_time_and_a_point_for_one_subject():
    values = np.random.default_rng(1).normal(size=20)
    assert bootstrap(values) == bootstrap(values) != bootstrap(values, seed=1)
    assert bootstrap(np.array([2.5])) == {"mean": 2.5, "low": 2.5, "high": 2.5}


def test_gains_over_registration_have_a_table_of_their_own_with_every_metric():
    shifted = {name: {s: {m: v + 0.5 for m, v in f.items()} for s, f in own.items()}
               for name, own in {"registration": RESULTS["linear"]}.items()}  # fmt: skip
    results = RESULTS | shifted | {"autoencoder": RESULTS["better"]}
    protocol = protocol_of(ceilings={"autoencoder": CEILING["autoencoder"]})
    summary = summarise(protocol, results, {}, FACTS)
    over = summary["methods"]["better"]["over_registration"]
    assert over["psnr"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert over["ssim"]["mean"] == pytest.approx(-0.4)
    text = markdown(summary)
    start = text.splitlines().index(
        "By how much each differs from registration, subject by subject:"
    )
    table = table_of(text, start + 2)
    assert list(table) == ["better"]
    assert table["better"] == {"psnr": "0.500 [0.500, 0.500]", "ssim": "-0.400 [-0.400, -0.400]"}
    assert "registration" not in markdown(summarise(protocol_of(), RESULTS, {}, FACTS))


def test_gains_are_paired_differences_over_linear():
    summary = summarise(protocol_of(), RESULTS, {}, FACTS)
    gain = summary["methods"]["better"]["over_linear"]["psnr"]
    # The subjects differ by 10 dB, the pairs by nothing: the interval has no width.
    assert gain == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert "over_linear" not in summary["methods"]["linear"]
    assert summary["methods"]["better"]["psnr"] == {"mean": 16.0, "low": 11.0, "high": 21.0}
    without = summarise(protocol_of(), {"better": RESULTS["better"]}, {}, FACTS)
    assert "over_linear" not in without["methods"]["better"]
    assert cells(markdown(without).splitlines()[2]) == ["method", "psnr", "ssim"]


def test_only_subjects_that_both_have_count_as_pairs():
    results = {
        "linear": {"a": {"psnr": 10.0}, "b": {"psnr": NAN}, "c": {"psnr": 50.0}},
        "better": {"a": {"psnr": 12.0}, "b": {"psnr": 99.0}, "d": {"psnr": 99.0}},
    }
    summary = summarise(protocol_of(), results, {}, FACTS)
    better = summary["methods"]["better"]
    assert better["over_linear"]["psnr"] == {"mean": 2.0, "low": 2.0, "high": 2.0}
    assert better["psnr"]["mean"] == 70.0
    assert summary["methods"]["linear"]["psnr"]["mean"] == 30.0
    assert summary["n_subjects"] == 4


def test_the_share_of_the_way_is_that_to_the_goal():
    results = {
        "linear": {"a": {"psnr": 10.0, "ssim": 0.5}, "b": {"psnr": 20.0, "ssim": 0.5}},
        "better": {"a": {"psnr": 11.0, "ssim": 0.7}, "b": {"psnr": 23.0, "ssim": 0.7}},
        "worse": {"a": {"psnr": 9.0, "ssim": 0.5}, "b": {"psnr": 19.0, "ssim": 0.5}},
        "autoencoder": {"a": {"psnr": 12.0, "ssim": 0.9}, "b": {"psnr": 22.0, "ssim": 0.9}},
        "real slice": {"a": {"psnr": 18.0, "ssim": 0.5}, "b": {"psnr": 28.0, "ssim": 0.5}},
    }
    summary = summarise(protocol_of(ceilings=CEILING, goal="real slice"), results, {}, FACTS)
    share = {m: f.get("share_of_way") for m, f in summary["methods"].items()}
    assert summary["ceilings"] == ["autoencoder", "real slice"]
    # Of the 8 dB from linear's mean to the real slices'.
    assert share["better"]["psnr"] == pytest.approx(2 / 8)
    assert share["worse"]["psnr"] == pytest.approx(-1 / 8)
    assert share["real slice"]["psnr"] == 1.0
    assert share["better"]["ssim"] is None  # the ceiling is where linear is
    assert share["linear"] is None
    table = table_of(markdown(summary))
    way = "psnr: share of the way to real slice"
    assert [table[m][way] for m in ("linear", "better", "real slice")] == ["", "25 %", "100 %"]


def test_a_share_needs_figures_of_all_three():
    results = {
        "linear": {"a": {"psnr": NAN, "ssim": 0.5}},
        "better": {"a": {"psnr": 1.0, "ssim": 0.5}},
        "real slice": {"a": {"psnr": 2.0, "ssim": NAN}},
    }
    summary = summarise(protocol_of(ceilings=CEILING, goal="real slice"), results, {}, FACTS)
    assert summary["methods"]["better"]["share_of_way"] == {"psnr": None, "ssim": None}
    json.dumps(summary, allow_nan=False)


def test_the_table_has_a_caption_and_its_columns_in_order():
    text = markdown(summarise(protocol_of(), RESULTS, {}, FACTS))
    caption = text.splitlines()[0]
    assert caption.startswith("made up on some/data: 2 subjects, 12 compared images, seed 3.")
    assert "95 % bootstrap intervals" in caption
    head = cells(text.splitlines()[2])
    # A column that no method has is left out.
    assert head == ["method", "psnr", "ssim", "psnr over linear", "ssim over linear"]
    table = table_of(text)
    assert list(table) == ["linear", "better"]
    assert table["better"]["psnr"] == "16.00 [11.00, 21.00]"
    assert table["better"]["ssim"] == "0.400 [0.200, 0.600]"
    assert table["better"]["psnr over linear"] == "1.000 [1.000, 1.000]"
    assert table["linear"]["psnr over linear"] == ""
    assert text.endswith("|\n")


def test_every_split_is_a_table_of_its_own():
    protocol = protocol_of(headline=("psnr",))
    summary = summarise(protocol, RESULTS, SPLITS, FACTS)
    third = summary["splits"]["third"]
    assert third["base"]["n_subjects"] == 2
    assert third["base"]["methods"] == {"linear": {"psnr": 5.125}, "better": {"psnr": 1.5}}
    assert third["apex"]["methods"] == {"linear": {"psnr": None}, "better": {"psnr": 2.0}}
    text = markdown(summary)
    start = text.splitlines().index("By third, means:")
    table = table_of(text, start + 2)
    assert table == {
        "linear": {"psnr, base (2)": "5.12", "psnr, apex (1)": ""},
        "better": {"psnr, base (2)": "1.50", "psnr, apex (1)": "2.00"},
    }


def test_the_three_files_hold_the_same_figures_and_the_summary_is_json(tmp_path):
    results = {
        "linear": {"b": {"psnr": 20.0, "ef": NAN}, "a": {"psnr": 10.0, "ef": NAN}},
        "better": {"a": {"psnr": 11.123456789, "ef": NAN, "extra": 1.0}},
    }
    protocol = protocol_of(
        columns=("psnr", "ef"), headline=("psnr", "ef"), ceilings=CEILING, goal="real slice"
    )
    summary = summarise(protocol, results, SPLITS, FACTS | {"machine": {"cores": 2}})
    pictures = {"dot.png": lambda path: path.write_bytes(b"picture")}
    write_results(results, summary, pictures, tmp_path)
    assert (tmp_path / "dot.png").read_bytes() == b"picture"

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    read = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert read == json.loads(json.dumps(summary))
    assert read["methods"]["linear"]["psnr"]["mean"] == 15.0
    assert read["methods"]["linear"]["ef"] is None
    assert read["machine"] == {"cores": 2}
    assert read["columns"] == ["psnr", "ef"]
    assert (tmp_path / "table.md").read_text() == markdown(summary)
    assert table_of(markdown(summary))["better"]["ef"] == ""
    lines = list(csv.reader((tmp_path / "per_subject.csv").read_text().splitlines()))
    assert lines == [
        ["method", "subject", "psnr", "ef", "extra"],
        ["linear", "a", "10", "nan", ""],
        ["linear", "b", "20", "nan", ""],
        ["better", "a", "11.1235", "nan", "1"],
    ]
    assert {p.name for p in tmp_path.iterdir()} == {
        "summary.json",
        "table.md",
        "per_subject.csv",
        "dot.png",
    }
