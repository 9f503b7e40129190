"""Hidden slices over the heartbeat, in one light animated picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from calid.report.beat import SIDE, SPACE, TITLE, save_beat
from calid.report.figures import LIGHT


def films(frames: int, side: int, grain: float) -> dict[str, np.ndarray]:
    """A square that grows and shrinks, brighter in higher slices; methods differ in brightness."""
    rng = np.random.default_rng(0)
    truth = np.zeros((frames, 3, side, side), np.float32)
    for frame in range(frames):
        reach = round(side / 16 * (2 + np.cos(2 * np.pi * frame / frames)))
        inside = slice(side // 2 - reach, side // 2 + reach)
        truth[frame, :, inside, inside] = np.array([0.3, 0.5, 0.7])[:, None, None]
    named = {"linear": 1.0, "calid": 1.3, "truth": 1.0, "calid-2d": 1.2, "registration": 1.1}
    return {
        name: truth * factor + grain * rng.random(truth.shape, np.float32)
        for name, factor in named.items()
    }


def read(path) -> tuple[np.ndarray, list[float]]:
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        assert picture.info["loop"] == 0
        shown, each = [], []
        for frame in range(picture.n_frames):
            picture.seek(frame)
            shown.append(np.asarray(picture))
            each.append(picture.info["duration"])
    return np.stack(shown), each


def panel(shown: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = TITLE + row * (SIDE + SPACE), column * (SIDE + SPACE)
    return shown[:, top : top + SIDE, left : left + SIDE]


def test_rows_are_slices_and_columns_methods_through_one_beat(tmp_path):
    save_beat(films(8, SIDE, 0.0), tmp_path / "beat.png")
    shown, each = read(tmp_path / "beat.png")
    assert len(shown) == 8
    assert sum(each) == pytest.approx(1000)
    assert shown.shape[1:] == (TITLE + 3 * (SIDE + SPACE) - SPACE, 4 * (SIDE + SPACE) - SPACE)
    for row, brightness in enumerate((0.3, 0.5, 0.7)):
        for column, factor in enumerate((1.0, 1.1, 1.2, 1.3)):
            images = panel(shown, row, column)
            assert images.max() == pytest.approx(255 * brightness * factor, abs=2.6)
            beating = (images > 0).sum((1, 2))
            assert beating.argmin() == 4
            assert beating.argmax() == 0
    # Each column has its name.
    heads = [shown[0, :TITLE, n * (SIDE + SPACE) :][:, :SIDE] for n in range(4)]
    assert all(head.max() > 128 for head in heads)


@pytest.mark.parametrize(("frames", "side"), [(30, 240), (30, 100)])
def test_grain_leaves_it_light_and_what_moves_in_view(tmp_path, frames, side):
    save_beat(films(frames, side, 0.3), tmp_path / "beat.png")
    assert 10_000 < (tmp_path / "beat.png").stat().st_size <= LIGHT
    shown, each = read(tmp_path / "beat.png")
    assert sum(each) == pytest.approx(1000, abs=10)
    assert len(shown) in (15, 10, 6)
    assert shown.shape[2] <= 4 * (SIDE + SPACE)


def test_methods_that_are_not_there_leave_no_hole(tmp_path):
    given = {name: film for name, film in films(4, SIDE, 0.0).items() if name in ("truth", "calid")}
    save_beat(given, tmp_path / "beat.png")
    assert read(tmp_path / "beat.png")[0].shape[2] == 2 * (SIDE + SPACE) - SPACE
