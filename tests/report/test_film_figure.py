from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calid.baselines.rules import linear
from calid.data.phantom import HeartPhantom
from calid.errors import OutputError
from calid.inference.densify import densify
from calid.report.film import check_animation, film_strip, picture_of, save_animation
from calid.stack import SliceStack, Volume

FRAMES = 5


@pytest.fixture(scope="module")
def heart() -> tuple[SliceStack, Volume]:
    """A tiny film whose "CaLID" is linear."""
    phases = np.arange(FRAMES) / FRAMES
    found = HeartPhantom(3).acquire(slices=3, start=10.0, spacing=3.0, phases=phases)
    stack = replace(found, frame_times=0.1 + 0.035 * np.arange(FRAMES))
    return stack, densify(stack, linear, 4)


def durations(picture: Image.Image) -> list[int]:
    found = []
    for frame in range(picture.n_frames):
        picture.seek(frame)
        found.append(picture.info["duration"])
    return found


def frames(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        found = []
        for frame in range(picture.n_frames):
            picture.seek(frame)
            found.append(np.asarray(picture.convert("L")))
    return np.stack(found)


def panel(images: np.ndarray, number: int) -> np.ndarray:
    """The inside of an image of the upper row; titles, time and scale are outside."""
    apart = (images.shape[2] - 44) // 3
    left = 44 + apart * number
    return images[:, 30:200, left : left + apart - 4]


@pytest.fixture(scope="module")
def film(heart, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("film") / "beat.gif"
    picture_of(*heart, path.suffix)(path)
    return path


@pytest.mark.slow
def test_a_film_lasts_one_heartbeat_and_starts_again(film):
    with Image.open(film) as picture:
        assert picture.n_frames == FRAMES
        assert picture.info["loop"] == 0
        found = durations(picture)
    # 35 ms each, in hundredths of a second: rounded where images change, so that none is lost.
    assert sum(found) == pytest.approx(1000 * 0.035 * FRAMES, abs=5)
    assert set(found) == {30, 40}


@pytest.mark.slow
def test_the_heart_beats_in_every_column(film):
    images = frames(film)
    for column in range(3):
        shown = panel(images, column).astype(float)
        assert np.abs(np.diff(shown, axis=0)).mean(axis=(1, 2)).min() > 2
    acquired, straight, generated = (panel(images, column) for column in range(3))
    # This "CaLID" is linear, but stored in whole numbers: a grey level at most.
    np.testing.assert_allclose(straight.astype(float), generated, rtol=0, atol=5)
    assert np.abs(acquired.astype(float) - straight).mean() > 2


@pytest.mark.slow
def test_a_film_is_small_the_same_again_and_names_nothing(heart, film, tmp_path):
    stack, volume = heart
    again = tmp_path / "again.gif"
    save_animation(replace(stack, source="Jane Doe"), volume, again)
    assert again.read_bytes() == film.read_bytes()
    assert film.stat().st_size < 5e6 / 30 * FRAMES
    with Image.open(film) as picture:
        assert set(picture.info) <= {
            "version", "background", "loop", "duration", "extension", "transparency",
        }  # fmt: skip


@pytest.mark.slow
def test_frames_that_no_browser_shows_in_time_are_left_out(heart, tmp_path):
    stack, volume = heart
    fast = replace(stack, frame_times=0.012 * np.arange(FRAMES))
    save_animation(fast, volume, tmp_path / "fast.gif")
    with Image.open(tmp_path / "fast.gif") as picture:
        assert picture.n_frames == 3
        assert min(durations(picture)) >= 10
        assert sum(durations(picture)) == pytest.approx(60, abs=5)


def test_a_film_is_centred_on_what_moves(heart, tmp_path):
    stack, _ = heart
    data = np.full((2, 3, 100, 90), 100, np.int16)
    data[1, :, 10:20, 70:80] = 200
    small = replace(stack, data=data, frame_times=np.array([0.0, 0.1]))
    save_animation(small, densify(small, linear, 2), tmp_path / "a.gif")
    shown = frames(tmp_path / "a.gif")
    # The square is in the upper right of the field of view, whose edge the view does not leave.
    bright = np.argwhere(panel(shown, 0)[1] > 200)
    assert len(bright) > 100
    assert bright[:, 0].max() < 110
    # The cut goes through the square, in time as in space.
    below = shown[:, -50:-30, 44 : shown.shape[2] // 3]
    assert below[0].max() < 100
    assert below[1].max() > 200


@pytest.mark.slow
def test_a_still_film_shows_three_moments(heart, tmp_path):
    figure = film_strip(*heart)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["as acquired", "linear", "CaLID"]
    assert len(figure.axes) == 18
    texts = [text.get_text() for text in figure.texts]
    assert [text.split("\n")[-1] for text in texts[:3]] == ["100 ms", "135 ms", "205 ms"]
    images = [axis.images[0].get_array() for axis in figure.axes]
    assert not np.array_equal(images[0], images[3])
    assert not np.array_equal(images[9], images[12])
    picture_of(*heart, ".png")(tmp_path / "strip.png")
    assert (tmp_path / "strip.png").read_bytes()[:4] == b"\x89PNG"


def test_a_heart_that_stands_still_is_compared_in_three_planes_and_not_animated(heart, tmp_path):
    stack, volume = heart
    times = stack.frame_times[:1]
    still = replace(stack, data=stack.data[:1], frame_times=times)
    check_animation(tmp_path / "still.png", still)
    check_animation(tmp_path / "film.gif", stack)
    with pytest.raises(OutputError, match=r"Use \.png"):
        check_animation(tmp_path / "still.GIF", still)
    one = replace(volume, data=volume.data[:1], frame_times=times)
    picture_of(still, one, ".png")(tmp_path / "still.png")
    with Image.open(tmp_path / "still.png") as picture:
        assert picture.width > picture.height
