from __future__ import annotations

import numpy as np
import pytest

from calid.evaluation.hidden_slices import subject_means
from calid.evaluation.statistics import bootstrap
from calid.evaluation.tables import markdown, summarise


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        interval = bootstrap(generator.normal(3.0, 1.0, 40), draws=500)
        hits += interval.low <= 3.0 <= interval.high
    assert 175 <= hits <= 199


def test_subjects_count_alike_however_many_slices_they_have():
    rows = [
        ("a", {"psnr": np.array([10.0, 10.0, 10.0])}),
        ("a", {"psnr": np.array([20.0])}),
        ("b", {"psnr": np.array([30.0])}),
    ]
    assert subject_means(rows) == {"a": {"psnr": 12.5}, "b": {"psnr": 30.0}}


def test_gains_are_paired_differences_over_linear():
    results = {
        "linear": {"a": {"psnr": 10.0, "ssim": 0.1}, "b": {"psnr": 20.0, "ssim": 0.5}},
        "better": {"a": {"psnr": 11.0, "ssim": 0.2}, "b": {"psnr": 21.0, "ssim": 0.6}},
    }
    summary = summarise(results, "hidden-slices", "d", {"seed": 0, "n_slices": 4})
    gain = summary["methods"]["better"]["over_linear"]["psnr"]
    # The subjects differ by 10 dB, the pairs by nothing: the interval has no width.
    assert gain == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert "over_linear" not in summary["methods"]["linear"]
    table = markdown(summary)
    assert "| better | 16.00 [11.00, 21.00]" in table
    assert "2 subjects, 4 hidden slices" in table


def test_a_method_that_ignores_its_input_comes_lastin_every_column():
    from calid.baselines.linear import linear
    from calid.baselines.nearest import nearest
    from calid.data.phantom import HeartPhantom
    from calid.evaluation.hidden_slices import Case, evaluate_case

    stack = HeartPhantom(7).acquire(slices=7)
    images = (stack.data[0] / np.percentile(stack.data, 99.5)).astype(np.float32)
    case = Case("p", "p", images, stack.positions)

    def grey(images, positions, targets, spacing):
        return np.full((len(targets), *images.shape[1:]), 0.5, np.float32)

    figures = {
        m.__name__: {k: v.mean() for k, v in evaluate_case(case, m).figures.items()}
        for m in (nearest, linear, grey)
    }
    for better in ("nearest", "linear"):
        assert figures["grey"]["psnr"] < figures[better]["psnr"]
        assert figures["grey"]["ssim"] < figures[better]["ssim"]
        assert figures["grey"]["sharpness"] < figures[better]["sharpness"]
    assert figures["grey"]["sharpness"] == pytest.approx(0, abs=1e-6)
