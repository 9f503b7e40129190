"""The dense protocol on phantoms, on made-up volumes, and on real data where it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from calid.baselines.rules import linear, nearest
from calid.data.intensity import IntensityWindow
from calid.data.phantom import HeartPhantom
from calid.errors import DataError
from calid.evaluation.dense import (
    GAP,
    DenseCase,
    dense,
    dense_case,
    first_slice,
    long_axis_figures,
    phantom_case,
    smoothness,
    sources,
    volume_case,
)
from calid.evaluation.protocol import Figures
from calid.evaluation.reslice import Reslicer, own_axis, short_axis
from calid.geometry.affine import from_spacing
from calid.inference.densify import densify
from calid.io import write_volume
from calid.stack import SliceStack

SEED, COARSE = 1000, 4.0


@pytest.fixture(scope="module")
def case() -> DenseCase:
    return phantom_case(SEED, COARSE)


def score(case: DenseCase, answer: NDArray[np.float32], **given) -> Figures:
    return dense(given.get("label"), None).score(case, answer)


def truth_labels(images: NDArray[np.float32], spacing: tuple[float, float]) -> NDArray[np.uint8]:
    """The phantom's own labels at 2 mm steps, whatever the images show."""
    side = (np.arange(images.shape[1]) - (images.shape[1] - 1) / 2) * spacing[0]
    z = first_slice(SEED) + 2.0 * np.arange(len(images))
    return HeartPhantom(SEED).label(side, side[:, None], z[:, None, None])


def methods(case: DenseCase) -> dict[str, NDArray[np.float32]]:
    given = (case.images[0], case.positions, case.targets, case.spacing)
    return {"linear": linear(*given)[None], "nearest": nearest(*given)[None]}


def made_up(
    image, shape=(40, 50, 60), steps=(1.0, 1.2, 1.4), affine: NDArray[np.float64] | None = None
) -> SliceStack:
    """A volume ``(slices, height, width)`` of a function of RAS millimetres, float32."""
    affine = from_spacing(steps) if affine is None else affine
    k, j, i = np.indices(shape)
    points = np.stack([i, j, k], -1) @ affine[:3, :3].T + affine[:3, 3]
    data = np.asarray(image(*np.moveaxis(points, -1, 0)), np.float32)[None]
    positions = np.arange(shape[0]) * steps[2]
    return SliceStack(data, affine, positions, steps[2], np.zeros(1))


def save(stack: SliceStack, path: Path) -> Path:
    write_volume(densify(stack, linear, 1), path)
    return path


def scanned(gap: float, slices: int) -> NDArray[np.generic]:
    """The phantom's first frame as it was acquired, without noise."""
    stack = HeartPhantom(SEED).acquire(
        gap, 8.0, COARSE, slices=slices, noise=0.0, start=first_slice(SEED)
    )
    return stack.data[0]


@pytest.mark.slow
def test_a_phantom_is_acquired_every_10_mm_and_asked_for_every_2_mm(case):
    assert case.name == case.subject == f"phantom-{SEED}"
    np.testing.assert_allclose(np.diff(case.positions), 10)
    assert len(case.targets) == 4 * (len(case.positions) - 1)
    assert not set(case.targets) & set(case.positions)
    places = np.sort(np.concatenate([case.positions, case.targets]))
    np.testing.assert_array_equal(places, 2.0 * np.arange(len(places)))
    assert case.truth.shape == (1, len(case.targets), 48, 48)
    assert case.images.shape == (1, len(case.positions), 48, 48)
    assert case.groups["distance to a slice"][:4] == ("2 mm", "4 mm", "4 mm", "2 mm")
    assert all(len(v) == len(case.targets) for v in case.groups.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [SEED, SEED + 1, SEED + 7])
def test_outermost_slices_embrace_both_cavities(seed):
    case, first = phantom_case(seed, COARSE), first_slice(seed)
    side = np.arange(-96, 96, 4.0)
    for z in (first, first + case.positions[-1]):
        labels = HeartPhantom(seed).label(side, side[:, None], z)
        assert not np.isin(labels, (1, 3)).any()


def test_slices_lie_otherwise_to_the_valve_in_every_heart():
    below = np.sort([first_slice(SEED + n) % GAP for n in range(10)])
    assert (np.diff(below) > 0.5).all()
    assert below[-1] - below[0] > 7


@pytest.mark.slow
def test_truth_and_slices_are_what_a_scanner_would_give(case):
    slices = scanned(10.0, len(case.positions))
    window = IntensityWindow.of(slices)
    np.testing.assert_array_equal(case.images[0], window.normalise(slices))
    every = window.normalise(scanned(2.0, len(case.positions) + len(case.targets)))
    hidden = np.arange(len(every)) % 5 != 0
    np.testing.assert_array_equal(case.truth[0], every[hidden])


@pytest.mark.slow
def test_the_truth_is_the_best_answer(case):
    figures = score(case, case.truth, label=truth_labels)
    assert np.isinf(figures["psnr"]).all()
    assert np.isinf(figures["psnr_long"]).all()
    np.testing.assert_allclose(figures["ssim"], 1, atol=1e-6)
    np.testing.assert_allclose(figures["ssim_long"], 1, atol=1e-6)
    np.testing.assert_allclose(figures["smoothness"], 1)
    assert figures["lv_error"] < 2
    assert figures["rv_error"] < 2


def test_figures_are_one_a_target_or_one_a_case(case):
    figures = score(case, methods(case)["linear"], label=truth_labels)
    protocol = dense(truth_labels, None)
    assert set(protocol.columns) | set(protocol.headline) | protocol.lower_is_better == set(figures)
    for name in figures:
        per_target = name in ("psnr", "ssim", "sharpness", "hfen")
        assert figures[name].shape == ((len(case.targets),) if per_target else (1,))
    assert not {"lv_error", "rv_error"} & set(score(case, case.truth))


def test_steps_are_rougher_than_the_truth_and_straight_lines_are_smoother(case):
    ours, theirs = (score(case, a) for a in methods(case).values())
    assert ours["smoothness"] < 0.7
    assert theirs["smoothness"] > 1.5
    for name in ("psnr", "ssim", "psnr_long", "ssim_long"):
        assert ours[name].mean() > theirs[name].mean(), name


def test_combing_raises_the_curvature_but_hardly_the_error(case):
    signs = np.where(np.arange(len(case.targets)) % 2, 1, -1)[:, None, None]
    combed = case.truth * (1 + np.float32(0.05) * signs)
    figures = score(case, combed.astype(np.float32))
    assert figures["smoothness"][0] > 1.3
    assert np.median(figures["psnr"]) > np.median(score(case, methods(case)["linear"])["psnr"])


def test_long_axis_figures_see_both_orientations():
    truth = np.random.default_rng(0).random((1, 12, 14, 16)).astype(np.float32)
    for axis in (2, 3):
        shape = [1, 1, 1, 1]
        shape[axis] = truth.shape[axis]
        ramp = np.linspace(0, 0.1, truth.shape[axis], dtype=np.float32).reshape(shape)
        found = long_axis_figures(truth + ramp, truth)
        turned = long_axis_figures(*(x.swapaxes(2, 3) for x in (truth + ramp, truth)))
        for name in ("psnr_long", "ssim_long"):
            assert found[name].shape == (1,)
            np.testing.assert_allclose(found[name], turned[name], rtol=1e-6)
            assert np.isfinite(found[name]).all()


def test_long_axis_planes_without_error_do_not_make_the_psnr_infinite():
    truth = np.random.default_rng(0).random((1, 12, 12, 12)).astype(np.float32)
    answer = truth.copy()
    answer[..., 3] += 0.1
    found = long_axis_figures(answer, truth)
    # One plane with an error of 0.1: 20 dB. Twelve across it with a twelfth of that energy.
    expected = (20 + 12 * (20 + 10 * np.log10(12))) / 13
    np.testing.assert_allclose(found["psnr_long"], expected, rtol=1e-4)


def test_smoothness_of_a_truth_without_curvature_is_unknown():
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32)[None, :, None, None], (1, 12, 11, 11))
    assert np.isnan(smoothness(ramp, ramp))


def test_cavities_that_are_too_small_or_missing_show_as_errors_in_percent(case):
    def without_lv(images, spacing):
        labels = truth_labels(images, spacing)
        return np.where(labels == 3, 0, labels).astype(np.uint8)

    figures = score(case, case.truth, label=without_lv)
    np.testing.assert_allclose(figures["lv_error"], 100)
    assert figures["rv_error"] < 2


def test_the_whole_stack_is_labelled_once_from_base_to_apex(case):
    seen = []

    def label(images, spacing):
        seen.append((images, spacing))
        return np.zeros(images.shape, np.uint8)

    score(case, case.truth, label=label)
    (images, spacing), *others = seen
    assert not others
    assert spacing == (4.0, 4.0)
    order = np.argsort(np.concatenate([case.positions, case.targets]))
    shown = np.concatenate([case.images[0], case.truth[0]])[order]
    np.testing.assert_array_equal(images, shown.clip(0, 1))


def test_phantoms_that_were_trained_on_are_refused():
    with pytest.raises(DataError, match="trained on"):
        dense_case(Path("phantoms/79"))


@pytest.mark.slow
def test_the_word_phantoms_stands_for_held_out_seeds(tmp_path):
    found = sources(Path("phantoms"), 3)
    assert found == [Path(f"phantoms/{seed}") for seed in (1000, 1001, 1002)]
    loaded = dense(None, None).load(found[1])
    assert loaded.name == "phantom-1001"
    folder = tmp_path / "phantoms"  # a folder of that name is a folder
    folder.mkdir()
    file = save(made_up(lambda x, y, z: x + y + z), folder / "a_dense.nii.gz")
    assert sources(folder) == sources(file) == [file]


def test_a_volume_is_sliced_along_its_third_axis_inside_its_ends(tmp_path):
    stack = made_up(lambda x, y, z: 100 + z, steps=(1.5, 1.5, 1.0), shape=(50, 20, 30))
    found = volume_case(save(stack, tmp_path / "anna_dense.nii.gz"))
    assert (found.subject, found.name) == ("anna", "anna_dense")
    # 49 mm less 5 mm at either end leave 39: four slices.
    np.testing.assert_allclose(found.positions, [0, 10, 20, 30])
    assert found.images.shape == (1, 4, 20, 30)
    assert found.groups["source"] == ("volume",) * 12
    assert not found.millilitres
    height = found.truth[0].mean((1, 2)).reshape(3, 4)
    np.testing.assert_allclose(np.diff(height), np.diff(height)[0, 0], rtol=1e-3)


def test_errors_of_volumes_are_unknown_without_exact_ones(tmp_path):
    waves = made_up(lambda x, y, z: np.sin(x / 4) + np.cos(y / 3) + np.sin(z / 5))
    found = volume_case(save(waves, tmp_path / "w.nii.gz"))
    figures = score(found, found.truth, label=truth_labels)
    assert np.isnan(figures["lv_error"]).all()
    assert np.isnan(figures["rv_error"]).all()
    np.testing.assert_allclose(figures["smoothness"], 1)


def test_volumes_that_are_coarse_or_short_are_refused(tmp_path):
    coarse = made_up(lambda x, y, z: x, steps=(1.0, 1.0, 5.0))
    with pytest.raises(DataError, match="5 mm are no dense truth"):
        volume_case(save(coarse, tmp_path / "coarse.nii.gz"))
    short = made_up(lambda x, y, z: x, shape=(25, 20, 20), steps=(1.0, 1.0, 1.0))
    with pytest.raises(DataError, match="Fewer than three slices"):
        volume_case(save(short, tmp_path / "short.nii.gz"))


def test_slices_show_the_point_in_space_where_they_lie():
    axis = short_axis((-20.0, -40.0, 10.0), (-30.0, -10.0, 40.0), 12.0, 10.0)
    frame = np.stack([axis.columns, axis.rows, axis.normal])
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    assert axis.columns[0] < -0.9  # to the left
    assert axis.rows[2] < 0  # and down
    for direction in range(3):
        volume = made_up(lambda *p, d=direction: p[d], shape=(60, 60, 60))
        images = Reslicer(volume, axis, 2.0, 100.0).slices(np.array([0.0, 12.0]), 0.0)
        assert images.shape == (2, 6, 5)
        for image, at in zip(images, (0.0, 12.0), strict=True):
            centre = (axis.origin + at * axis.normal)[direction]
            np.testing.assert_allclose(image.mean(), centre, atol=5e-3)
            np.testing.assert_allclose(np.diff(image, axis=0), 2 * axis.rows[direction], atol=5e-3)
            across = 2 * axis.columns[direction]
            np.testing.assert_allclose(np.diff(image, axis=1), across, atol=5e-3)


def test_an_axis_that_runs_to_the_left_still_has_planes():
    axis = short_axis((0, 0, 0), (-30, 0, 0), 10, 10)
    np.testing.assert_allclose(axis.columns, [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(np.abs(axis.rows), [0, 0, 1], atol=1e-12)


def test_thick_slices_blur_what_is_thinner_than_they_are():
    volume = made_up(
        lambda x, y, z: np.cos(2 * np.pi * z / 8), steps=(1.0, 1.0, 0.5), shape=(120, 9, 9)
    )
    reslicer = Reslicer(volume, own_axis(volume, 5.0), 1.0, 100.0)
    positions = np.arange(0, 40, 1.0)
    thin, thick = (reslicer.slices(positions, t) for t in (0.0, 8.0))
    assert np.abs(thin).max() > 0.98
    assert np.abs(thick).max() < 0.1


def test_slices_beyond_the_volume_are_noticed():
    volume = made_up(lambda x, y, z: x, shape=(40, 40, 40), steps=(1.0, 1.0, 1.0))
    axis = own_axis(volume, 5.0)
    reslicer = Reslicer(volume, axis, 1.0, 100.0)
    assert reslicer.outside(np.arange(0, axis.length)) == 0
    assert reslicer.outside(np.array([0.0, 100.0])) == 0.5


def test_the_real_dense_heart_fills_its_field_of_view(real_data):
    path = real_data / "isotropic" / "hvsmr_pat4.nii.gz"
    if not path.exists():
        pytest.skip("no dense volume")
    found = dense_case(path)
    assert found.images.shape == (1, 5, 36, 48)
    figures = {n: score(found, a) for n, a in methods(found).items()}
    assert figures["linear"]["psnr"].mean() > figures["nearest"]["psnr"].mean() > 20
    assert figures["nearest"]["smoothness"][0] > 1.5
