"""How stacks and films become cases: what is hidden, what is seen, where; and their figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import write_nifti
from numpy.typing import NDArray

from calid.baselines.rules import linear
from calid.data.intensity import IntensityWindow
from calid.data.phantom import HeartPhantom
from calid.errors import DataError
from calid.evaluation.hidden_slices import (
    film,
    hidden_slices,
    image_figures,
    load_case,
    load_film,
    recoded,
    region,
)
from calid.evaluation.metrics import hfen, psnr, sharpness, ssim
from calid.evaluation.protocol import Case
from calid.geometry.affine import from_spacing
from calid.inference.densify import densify
from calid.io import write_volume
from calid.stack import SliceStack

GAP = 8.0


def save(path: Path, data: NDArray[np.generic], pixel: tuple[float, float] = (1.5, 1.5)) -> Path:
    """``(slices, height, width)`` or with frames in front, as NIfTI."""
    return write_nifti(path, data.T, from_spacing((pixel[1], pixel[0], GAP)))


def random_stack(slices: int, shape: tuple[int, int] = (20, 24), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 300, (slices, *shape)).astype(np.int16)


def boxes(
    shape: tuple[int, ...], rows: tuple[int, int], columns: tuple[int, int], widths: list[int]
) -> NDArray[np.uint8]:
    """Labels 3 in a box of every slice, as wide as said; none where the width is 0."""
    labels = np.zeros(shape, np.uint8)
    for number, width in enumerate(widths):
        labels[number, rows[0] : rows[1], columns[0] : columns[0] + width] = 3
    assert np.flatnonzero(labels.any((0, 1)))[-1] == columns[1] - 1
    return labels


def in_window(data: np.ndarray, kept: list[int]) -> np.ndarray:
    return IntensityWindow.of(data[kept]).normalise(data)


@pytest.mark.parametrize(
    ("slices", "kept", "hidden"),
    [
        (3, [0, 2], [1]),
        (4, [0, 2], [1]),  # nothing is above 3
        (5, [0, 2, 4], [1, 3]),
        (8, [0, 2, 4, 6], [1, 3, 5]),
        (9, [0, 2, 4, 6, 8], [1, 3, 5, 7]),
    ],
)
def test_every_second_slice_is_hidden_if_it_lies_between_two(tmp_path, slices, kept, hidden):
    data = random_stack(slices)
    case = load_case(save(tmp_path / "p1_ED.nii.gz", data))
    assert (case.subject, case.name) == ("p1", "p1_ED")
    scaled = in_window(data, kept)
    np.testing.assert_allclose(case.images, scaled[None, kept], atol=1e-6)
    np.testing.assert_allclose(case.truth, scaled[None, hidden], atol=1e-6)
    np.testing.assert_allclose(case.positions, GAP * np.array(kept))
    np.testing.assert_allclose(case.targets, GAP * np.array(hidden))
    assert case.images.dtype == case.truth.dtype == np.float32
    assert case.spacing == (1.5, 1.5)
    assert case.labels is None
    assert case.truth_labels is None
    assert case.groups["gap"] == ("16 mm",) * len(hidden)


def test_hidden_slices_leave_no_trace_in_what_a_method_sees(tmp_path):
    data = random_stack(7)
    other = data.copy()
    other[1::2] = 20000 - 100 * other[1::2]
    one, two = (
        load_case(save(tmp_path / name, d)) for name, d in (("a.nii", data), ("b.nii", other))
    )
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.positions, two.positions)
    np.testing.assert_array_equal(one.targets, two.targets)
    assert np.abs(one.truth - two.truth).mean() > 0.3


def test_only_the_first_frame_of_a_film_is_used(tmp_path):
    film = np.stack([random_stack(5, seed=s) for s in (0, 1)])
    one = load_case(save(tmp_path / "film.nii", film))
    two = load_case(save(tmp_path / "still.nii", film[0]))
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.truth, two.truth)
    assert one.images.shape[0] == 1


def test_images_are_on_pixels_of_one_and_a_half_millimetres(tmp_path):
    case = load_case(save(tmp_path / "a.nii", random_stack(3, (30, 50)), pixel=(3.0, 1.0)))
    assert case.images.shape == (1, 2, 60, 33)
    assert case.spacing == (1.5, 1.5)
    assert case.images.min() >= 0
    assert case.truth.min() >= 0


@pytest.mark.parametrize(
    ("shape", "centre", "rows", "columns"),
    [
        ((200, 240), (0.5, 0.5), (36, 164), (56, 184)),
        ((200, 240), (0.4, 0.6), (16, 144), (80, 208)),
        ((200, 240), (0.0, 1.0), (0, 128), (112, 240)),
        ((100, 129), (0.1, 0.9), (0, 100), (1, 129)),
    ],
)
def test_the_region_is_a_square_that_stays_inside(shape, centre, rows, columns):
    assert region(shape, centre, (1.5, 1.5)) == (..., slice(*rows), slice(*columns))


@pytest.mark.parametrize("mark", ["_label", "_lv"])
def test_the_region_is_cut_around_the_labels(tmp_path, mark):
    data = random_stack(3, (190, 200))
    save(tmp_path / "p1_ED.nii.gz", data)
    labels = boxes(data.shape, (40, 80), (110, 130), [20, 0, 10])
    save(tmp_path / f"p1_ED{mark}.nii.gz", labels)
    case = load_case(tmp_path / "p1_ED.nii.gz")
    # The bounding box of all slices is centred at row 60 and column 120.
    scaled = in_window(data, [0, 2])[:, 0:128, 56:184]
    np.testing.assert_allclose(case.truth[0], scaled[1:2], atol=1e-6)
    np.testing.assert_allclose(case.images[0], scaled[::2], atol=1e-6)
    if mark == "_label":
        assert case.labels is not None
        assert case.truth_labels is not None
        np.testing.assert_array_equal(case.labels[0], labels[::2, 0:128, 56:184])
        np.testing.assert_array_equal(case.truth_labels[0], labels[1:2, 0:128, 56:184])
    else:  # says where the heart is and no more
        assert case.labels is None


def test_without_labels_the_region_is_the_middle(tmp_path):
    data = random_stack(3, (190, 200))
    middle = in_window(data, [0, 2])[1, 31:159, 36:164]
    path = save(tmp_path / "p1_ED.nii.gz", data)
    np.testing.assert_allclose(load_case(path).truth[0, 0], middle, atol=1e-6)
    save(tmp_path / "p1_ED_label.nii.gz", np.zeros(data.shape, np.uint8))
    np.testing.assert_allclose(load_case(path).truth[0, 0], middle, atol=1e-6)


@pytest.mark.parametrize(
    ("widths", "thirds"),
    [
        ([12, 12, 12, 10, 8, 6, 4, 0, 0], ("base", "mid", "mid", "apex")),
        ([0, 0, 4, 6, 8, 10, 12, 12, 12], ("apex", "mid", "mid", "base")),
        (None, ("end", "mid", "mid", "end")),
    ],
)
def test_thirds_are_named_by_the_end_with_the_larger_heart(tmp_path, widths, thirds):
    data = random_stack(9)
    path = save(tmp_path / "p1_ED.nii", data)
    if widths:
        save(tmp_path / "p1_ED_label.nii", boxes(data.shape, (4, 12), (3, 15), widths))
    # Slices 1, 3, 5 and 7 of nine: the middle third is 3 to 5.
    assert load_case(path).groups["third"] == thirds


def test_labels_of_another_shape_are_refused(tmp_path):
    path = save(tmp_path / "p1_ED.nii", random_stack(5))
    beside = save(tmp_path / "p1_ED_label.nii", boxes((4, 20, 24), (2, 6), (3, 7), [4, 4, 4, 4]))
    with pytest.raises(DataError, match="do not fit the stack") as caught:
        load_case(path)
    assert caught.value.subject == str(beside)


def test_figures_are_those_of_images_clipped_to_the_window():
    rng = np.random.default_rng(0)
    truth = rng.random((3, 24, 24), dtype=np.float32) * 1.4
    answer = truth + 0.3 * rng.standard_normal((3, 24, 24)).astype(np.float32)
    figures = image_figures(answer, truth)
    a, b = (torch.from_numpy(np.clip(x, 0, 1)) for x in (answer, truth))
    for name, metric in (("psnr", psnr), ("ssim", ssim), ("hfen", hfen), ("sharpness", sharpness)):
        np.testing.assert_allclose(figures[name], metric(a, b).numpy(), rtol=1e-6)
        assert figures[name].shape == (3,)
        assert figures[name].dtype == np.float64
    assert set(figures) == set(hidden_slices(None).columns)


class Halving:
    """Stands in for a model: its autoencoder halves what it sees."""

    def recode(self, images: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
        assert images.ndim == 3
        assert spacing == (1.5, 1.4)
        return images / 2


def test_the_ceiling_is_the_truth_through_the_autoencoder():
    rng = np.random.default_rng(0)
    case = Case(
        subject="p",
        name="p",
        images=rng.random((2, 3, 16, 18), dtype=np.float32),
        positions=np.arange(3.0),
        targets=np.array([0.5, 1.5]),
        truth=rng.random((2, 2, 16, 18), dtype=np.float32),
        spacing=(1.5, 1.4),
    )
    model = Halving()
    np.testing.assert_array_equal(recoded(model)(case), case.truth / 2)  # type: ignore[arg-type]
    protocol = hidden_slices(model)  # type: ignore[arg-type]
    assert list(protocol.ceilings) == ["autoencoder"]
    np.testing.assert_array_equal(protocol.ceilings["autoencoder"](case), case.truth / 2)
    assert hidden_slices(None).ceilings == {}
    assert list(film(model).ceilings) == ["autoencoder"]  # type: ignore[arg-type]
    exact = protocol.score(case, case.truth + 0.01)["psnr"]
    assert exact.shape == (2,)
    assert exact.min() > 35


def test_own_pixels_are_compared_as_they_are(tmp_path: Path):
    data = random_stack(5, (90, 160))
    own = load_case(save(tmp_path / "p1_ED.nii", data, pixel=(2.5, 1.25)), own_pixels=True)
    assert own.spacing == (2.5, 1.25)
    # 192 mm: 77 of 90 rows and 154 of 160 columns, from the middle.
    window = in_window(data, [0, 2, 4])[[1, 3], 6:83, 3:157]
    np.testing.assert_array_equal(own.truth[0], window)
    narrow = load_case(save(tmp_path / "p2_ED.nii", random_stack(3, (40, 50))), own_pixels=True)
    assert narrow.truth.shape[-2:] == (40, 50)


FRAMES = 12


def save_film(stack: SliceStack, path: Path) -> Path:
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
    return save_film(stack, tmp_path_factory.mktemp("film") / "p1003_cine.nii.gz")


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
    bright = load_film(save_film(replace(stack, data=other), tmp_path / "bright_cine.nii.gz"))
    np.testing.assert_array_equal(bright.images, case.images)
    last = stack.data.copy()
    last[-1] = last[-1] * 3  # the last frame does
    changed = load_film(save_film(replace(stack, data=last), tmp_path / "last_cine.nii.gz"))
    assert changed.images[0].mean() < 0.8 * case.images[0].mean()


def test_the_region_is_at_most_192_mm_about_the_centre(stack, path, tmp_path):
    wide = np.pad(stack.data, ((0, 0), (0, 0), (40, 40), (0, 0)), mode="edge")
    found = load_film(save_film(replace(stack, data=wide), tmp_path / "wide_cine.nii.gz"))
    assert found.images.shape[2:] == (128, 96)
    # 40 rows of 3 mm were added on either side; the window is another, so scales differ.
    parts = found.truth[:, :, 26:-26], load_film(path).truth[:, :, 10:-10]
    assert np.corrcoef(*(p.ravel() for p in parts))[0, 1] > 0.9999


def test_stacks_with_too_few_slices_or_frames_are_refused(stack, tmp_path):
    flat = replace(stack, data=stack.data[:, :2], positions=stack.positions[:2])
    for load in (load_case, load_film):
        with pytest.raises(DataError, match="Fewer than three slices"):
            load(save_film(flat, tmp_path / "flat.nii.gz"))
    short = replace(stack, data=stack.data[:3], frame_times=stack.frame_times[:3])
    with pytest.raises(DataError, match="3 frames are no film"):
        load_film(save_film(short, tmp_path / "short.nii.gz"))
    still = replace(stack, data=stack.data[:1], frame_times=stack.frame_times[:1], rank=3)
    with pytest.raises(DataError, match="1 frames are no film"):
        load_film(save_film(still, tmp_path / "still.nii.gz"))


def test_four_frames_are_a_film_without_flicker(stack, tmp_path):
    short = replace(stack, data=stack.data[::3], frame_times=stack.frame_times[::3])
    found = load_film(save_film(short, tmp_path / "four_cine.nii.gz"))
    figures = film(None).score(found, answer_of(found))
    assert np.isnan(figures["flicker"]).all()
    assert np.isfinite(figures["temporal_error"]).all()


def test_the_truth_is_the_best_answer(case):
    figures = film(None).score(case, case.truth)
    assert list(figures) == list(film(None).columns)
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


def test_noise_in_every_frame_flickers_and_averages_over_frames_do_not(case):
    noise = np.random.default_rng(0).normal(0, 0.05, case.truth.shape).astype(np.float32)
    figures = film(None).score(case, case.truth + noise)
    assert (figures["flicker"] > 1.3).all()
    held = film(None).score(case, case.truth + noise[:1])
    assert (held["temporal_error"] < 0.5 * figures["temporal_error"]).all()
    smooth = (np.roll(case.truth, 1, 0) + case.truth + np.roll(case.truth, -1, 0)) / 3
    assert (film(None).score(case, smooth)["flicker"] < 0.7).all()


def test_values_beyond_the_window_do_not_count(case):
    beyond = np.where(case.truth >= 1, case.truth + 0.4, case.truth)
    assert np.isinf(film(None).score(case, beyond)["psnr"]).all()
