"""The film protocol on films of phantoms and on made-up ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from calid.baselines.linear import linear
from calid.data.phantom import HeartPhantom
from calid.errors import DataError
from calid.evaluation.case import Case
from calid.evaluation.film import film, load_film
from calid.inference.densify import densify
from calid.io import write_volume
from calid.stack import SliceStack

FRAMES = 12
METRICS = ["psnr", "ssim", "hfen", "sharpness", "temporal_error", "flicker"]


def save(stack: SliceStack, path: Path) -> Path:
    write_volume(densify(stack, linear, 1), path)
    return path


@pytest.fixture(scope="module")
def stack() -> SliceStack:
    phases = tuple(np.arange(FRAMES) / FRAMES)
    return HeartPhantom(1003).acquire(
        slices=6, phases=phases, spacing=3.0, field_of_view=144.0, thickness=0.0
    )


@pytest.fixture(scope="module")
def path(stack, tmp_path_factory) -> Path:
    return save(stack, tmp_path_factory.mktemp("film") / "p1003_cine.nii.gz")


@pytest.fixture(scope="module")
def case(path) -> Case:
    return load_film(path)


def answer_of(case: Case) -> NDArray[np.float32]:
    given = (case.positions, case.targets, case.spacing)
    return np.stack([linear(images, *given) for images in case.images])


def test_alternate_slices_are_hidden_in_every_frame(case, stack):
    assert (case.subject, case.name) == ("p1003", "p1003_cine")
    assert case.images.shape == (FRAMES, 3, 96, 96)
    assert case.truth.shape == (FRAMES, 2, 96, 96)  # the sixth slice has no neighbour above
    np.testing.assert_allclose(case.positions, [0, 20, 40])
    np.testing.assert_allclose(case.targets, [10, 30])
    assert case.groups == {"gap": ("20 mm", "20 mm")}
    assert case.spacing == (1.5, 1.5)
    assert case.images.dtype == case.truth.dtype == np.float32


def test_the_window_is_that_of_the_kept_slices_of_all_frames(stack, case, tmp_path):
    other = stack.data.copy()
    other[:, 1::2] = other[:, 1::2] * 3  # hidden slices decide nothing
    bright = load_film(save(replace(stack, data=other), tmp_path / "bright_cine.nii.gz"))
    np.testing.assert_array_equal(bright.images, case.images)
    last = stack.data.copy()
    last[-1] = last[-1] * 3  # the last frame does
    changed = load_film(save(replace(stack, data=last), tmp_path / "last_cine.nii.gz"))
    assert changed.images[0].mean() < 0.8 * case.images[0].mean()


def test_the_region_is_at_most_192_mm_about_the_centre(stack, path, tmp_path):
    wide = np.pad(stack.data, ((0, 0), (0, 0), (40, 40), (0, 0)), mode="edge")
    found = load_film(save(replace(stack, data=wide), tmp_path / "wide_cine.nii.gz"))
    assert found.images.shape[2:] == (128, 96)
    # 40 rows of 3 mm were added on either side; the window is another, so scales differ.
    parts = found.truth[:, :, 26:-26], load_film(path).truth[:, :, 10:-10]
    assert np.corrcoef(*(p.ravel() for p in parts))[0, 1] > 0.9999


def test_stacks_with_too_few_slices_or_frames_are_refused(stack, tmp_path):
    flat = replace(stack, data=stack.data[:, :2], positions=stack.positions[:2])
    with pytest.raises(DataError, match="three slices"):
        load_film(save(flat, tmp_path / "flat.nii.gz"))
    short = replace(stack, data=stack.data[:3], frame_times=stack.frame_times[:3])
    with pytest.raises(DataError, match="3 frames are no film"):
        load_film(save(short, tmp_path / "short.nii.gz"))
    still = replace(stack, data=stack.data[:1], frame_times=stack.frame_times[:1], rank=3)
    with pytest.raises(DataError, match="1 frames are no film"):
        load_film(save(still, tmp_path / "still.nii.gz"))


def test_four_frames_are_a_film_without_flicker(stack, tmp_path):
    short = replace(stack, data=stack.data[::3], frame_times=stack.frame_times[::3])
    found = load_film(save(short, tmp_path / "four_cine.nii.gz"))
    figures = film(None).score(found, answer_of(found))
    assert np.isnan(figures["flicker"]).all()
    assert np.isfinite(figures["temporal_error"]).all()


def test_the_truth_is_the_best_answer(case):
    figures = film(None).score(case, case.truth)
    assert list(figures) == METRICS
    assert all(v.shape == (2,) for v in figures.values())
    assert np.isinf(figures["psnr"]).all()
    np.testing.assert_allclose(figures["ssim"], 1, atol=1e-6)
    np.testing.assert_array_equal(figures["temporal_error"], [0, 0])
    np.testing.assert_allclose(figures["flicker"], 1)


def test_image_figures_are_means_over_frames(case):
    answer = answer_of(case)
    figures = film(None).score(case, answer)
    frames = [slice(n, n + 1) for n in range(FRAMES)]
    single = [film(None).score(replace(case, truth=case.truth[f]), answer[f]) for f in frames]
    for name in ("psnr", "ssim", "hfen", "sharpness"):
        np.testing.assert_allclose(figures[name], np.mean([s[name] for s in single], 0), rtol=1e-6)


def test_linear_is_between_the_truth_and_a_film_that_stands_still(case):
    moving = film(None).score(case, answer_of(case))["temporal_error"]
    still = film(None).score(case, np.broadcast_to(case.truth[:1], case.truth.shape))
    np.testing.assert_allclose(still["temporal_error"], 1)
    assert (moving > 0.1).all()
    assert np.isnan(still["flicker"]).all()


def test_independent_noise_in_every_frame_flickers(case):
    noise = np.random.default_rng(0).normal(0, 0.05, case.truth.shape).astype(np.float32)
    figures = film(None).score(case, case.truth + noise)
    assert (figures["flicker"] > 1.3).all()
    held = film(None).score(case, case.truth + noise[:1])
    assert (held["temporal_error"] < 0.5 * figures["temporal_error"]).all()


def test_averages_over_neighbouring_frames_do_not_flicker(case):
    smooth = (np.roll(case.truth, 1, 0) + case.truth + np.roll(case.truth, -1, 0)) / 3
    assert (film(None).score(case, smooth)["flicker"] < 0.7).all()


def test_values_beyond_the_window_do_not_count(case):
    beyond = np.where(case.truth >= 1, case.truth + 0.4, case.truth)
    assert np.isinf(film(None).score(case, beyond)["psnr"]).all()


def test_the_autoencoder_is_a_ceiling_and_sees_every_frame(case):
    class Recoder:
        def recode(self, images, spacing):
            return images + np.float32(0.25)

    assert film(None).ceilings == {}
    ceiling = film(Recoder()).ceilings["autoencoder"](case)  # type: ignore[arg-type]
    np.testing.assert_allclose(ceiling, case.truth + 0.25)


def test_columns_are_among_the_figures():
    protocol = film(None)
    assert protocol.name == "film"
    assert set(protocol.columns) == set(METRICS)
    assert set(protocol.headline) | protocol.lower_is_better <= set(METRICS)
