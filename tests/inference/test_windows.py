from __future__ import annotations

import numpy as np
import pytest
import torch

from calid.inference.windows import windows
from calid.models.context import Acquired
from calid.models.temporal import STILL, Frames


@pytest.mark.parametrize("cycle", [1, 4, 6, 25, 32])
def test_a_film_that_fits_is_one_window(cycle):
    (only,) = windows(cycle, 32)
    np.testing.assert_array_equal(only.index, np.arange(cycle))
    np.testing.assert_array_equal(only.weight, 1)
    assert only.frames == Frames(cycle, cycle)


def test_one_frame_together_is_every_frame_alone():
    found = windows(5, 1)
    assert [w.index.tolist() for w in found] == [[n] for n in range(5)]
    assert all(w.frames == STILL and w.weight.tolist() == [1] for w in found)


@pytest.mark.parametrize(("cycle", "together"), [(33, 32), (50, 32), (9, 8), (100, 8), (41, 9)])
def test_longer_films_are_covered_without_a_seam(cycle, together):
    found = windows(cycle, together)
    total, times, largest = np.zeros(cycle), np.zeros(cycle, int), np.zeros(cycle)
    for w in found:
        assert w.frames == Frames(together, cycle)
        np.testing.assert_array_equal(np.diff(w.index) % cycle, 1)
        total[w.index] += w.weight
        times[w.index] += 1
        largest[w.index] = np.maximum(largest[w.index], w.weight)
        # Nobody counts much where half of its neighbours are missing.
        assert max(w.weight[0], w.weight[-1]) < 0.5
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert times.min() >= 2
    assert len(found) <= 2 * cycle / together + 1


def test_a_window_takes_its_frames_and_the_slices_near_a_gap():
    frames, slices = 9, 4
    number = torch.arange(frames * slices, dtype=torch.float32)
    film = Acquired(
        number[:, None, None, None].expand(-1, 1, 8, 8),
        number[:, None, None, None].expand(-1, 3, 2, 2),
        lambda x: x,
    )
    window = windows(frames, 8)[1]
    part = window.of(film, slices, slice(1, 3))
    expected = (window.index[:, None] * slices + [1, 2]).ravel()
    assert part.images[:, 0, 0, 0].tolist() == expected.tolist()
    assert part.latents[:, 2, 1, 0].tolist() == expected.tolist()
    assert part.frames == Frames(8, 9)
