"""The page about a reconstruction: what it says, and that it can do no harm."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from calid.baselines.rules import linear
from calid.errors import OutputError, UsageError
from calid.evaluation.selfcheck import self_check
from calid.inference.densify import densify
from calid.report.figures import spread_figure
from calid.report.measures import Volumes
from calid.report.page import Report, page, write_page
from calid.segmentation.measures import Chamber, Function, Measurement

RECORD = {
    "software": {"name": "calid", "version": "0.0"},
    "input": {"sha256": "1f" * 32},
    "output": {"acquired_offsets_mm": [0.0, 0.0]},
    "settings": {"preset": "default", "seed": 0},
    "weights_sha256": {"default": "2e" * 32},
    "seconds": {"load_model": 1.25},
}


@pytest.fixture
def report(small_stack):
    return Report(
        stack=small_stack,
        volume=densify(small_stack, linear, 3),
        record=RECORD,
        files={"output": "3d" * 32},
        command="calid reconstruct INPUT OUTPUT --seed 0",
        warnings=[],
        check=self_check(small_stack, linear),
        volumes=Volumes(Measurement(100.0, 90.5, 80.0), Measurement(101.0, 91.5, 81.0)),
    )


class Reader(HTMLParser):
    """Elements and their attributes, and whether every element is closed."""

    VOID = ("meta", "link", "img", "line")

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.VOID or self.open.pop() == tag


def words(text):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def test_the_page_says_what_went_in_what_came_out_and_how(report):
    text = words(page(report))
    for said in (
        "5 slices 10 mm apart became 13, 3.33 mm apart",
        "Research use only; not a medical device.",
        "5 acquired",
        "8 generated",
        "34 × 41 of 1.6 × 1.4 mm",
        "2, 40 ms apart",
        "On your data CaLID and linear are level.",
        "LV cavity (ml) 100.0 101.0",
        "calid reconstruct INPUT OUTPUT --seed 0",
        *("1f" * 32, "2e" * 32, "3d" * 32),
    ):
        assert said in text


def test_nothing_is_requested_and_nothing_runs(report):
    text = page(report)
    elements = Reader(text).found
    assert {"script", "iframe", "object", "form"} & {tag for tag, _ in elements} == set()
    links = [v for _, a in elements for k, v in a.items() if k in ("src", "href", "srcset")]
    assert len(links) == 4
    assert all(link.startswith("data:") for link in links)
    assert not any(k.startswith("on") or k == "style" for _, a in elements for k in a)
    assert "url(" not in text
    assert "@import" not in text
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in text


def test_words_from_outside_stay_words(report):
    evil = '<script>alert("1")</script><img src=http://x.org/> {{style}}'
    text = page(
        replace(report, warnings=[evil], command=f"calid --x {evil}", check=evil, volumes=evil)
    )
    assert "Not done. &lt;script" in text
    assert "Not measured. &lt;script" in text
    assert "<script" not in text
    assert "<img src=http" not in text
    assert text.count("&lt;script&gt;") == 4
    assert text.count("{{style}}") == 4
    assert "/>" not in re.sub(r"<line[^>]*/>", "", text)
    Reader(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(2.13, "CaLID is +2.1 dB above linear."), (-1.0, "CaLID is 1.0 dB below linear: look")],
)
def test_the_verdict_follows_the_figures(report, gain, verdict):
    figures = dict(report.check.figures)
    figures["CaLID"] = figures["linear"] | {"psnr": figures["linear"]["psnr"] + gain}
    assert verdict in words(page(replace(report, check=replace(report.check, figures=figures))))


@pytest.mark.slow
def test_a_film_has_fractions_and_its_frames_are_named(report):
    function = Function(0, 7, Chamber(120.0, 60.0), None, 99.0)
    text = words(page(replace(report, volumes=Volumes(function, function))))
    assert "LV EF (%) 50.0 50.0" in text
    assert "RV EF (%) – –" in text
    assert "end-systole frame 8" in text


@pytest.mark.slow
def test_the_uncertainty_is_shown_if_there_is_one(report):
    assert "Standard deviation over samples" not in page(report)
    with pytest.raises(UsageError):
        spread_figure(report.volume)
    spread = np.where(report.volume.acquired[:, None, None], 0, 3.0)
    spread = np.broadcast_to(spread, report.volume.data.shape).astype(np.float32)
    text = page(replace(report, volume=replace(report.volume, uncertainty=spread)))
    assert "Standard deviation over samples" in text
    assert text.count("data:image/png") == 4


@pytest.mark.slow
def test_where_networks_answered_and_slices_beside_their_planes_are_told(report):
    text = words(page(report))
    assert "registered" not in text
    assert "their places" not in text
    part = replace(report.volume, region=((2, 9), (0, 11)))
    record = RECORD | {"output": {"acquired_offsets_mm": [0.0, -0.25]}}
    text = words(page(replace(report, volume=part, record=record)))
    assert "rows 2 to 8 and columns 0 to 10" in text
    assert "up to 0.25 mm beside the plane" in text


@pytest.mark.slow
@pytest.mark.parametrize("slices", [2, 5, 12, 15])
def test_the_ruler_has_a_tick_a_slice_and_few_words(report, small_stack, slices):
    data = np.repeat(small_stack.data[:1, :1], slices, axis=1)
    stack = replace(
        small_stack, data=data, positions=np.arange(slices) * 10.0, frame_times=np.zeros(1)
    )
    text = page(replace(report, stack=stack, volume=densify(stack, linear, 4), check="None."))
    drawn = text[text.index("<svg") : text.index("</svg>")]
    generated, acquired = drawn.split('class="acquired"')
    assert generated.count("<line") == 3 * (slices - 1)
    assert acquired.count("<line") == slices
    places = [int(n) for n in re.findall(r">(\d+)</text>", drawn)]
    assert places[0] == 0
    assert places[-1] == 10 * (slices - 1)
    assert 2 <= len(places) <= 6
    assert min(np.diff(places)) >= places[-1] / 11


@pytest.mark.slow
def test_a_page_for_a_folder_that_is_not_there_is_refused(report, tmp_path):
    with pytest.raises(OutputError):
        write_page(report, tmp_path / "absent" / "report.html")
    write_page(report, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page(report)
