"""Measuring a stack's heart twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calid.baselines.rules import linear
from calid.errors import DataError
from calid.inference.densify import densify
from calid.io.labels import LV, MYOCARDIUM, RV
from calid.report.measures import measured


class Thresholds:
    """Labels by brightness."""

    def label_volume(self, volume, on_frame=lambda frame: None):
        on_frame(len(volume.data))
        return np.digitize(volume.data, [50, 150, 250]).astype(np.uint8)


def beating(small_stack):
    """A cylinder whose cavity halves in the second frame."""
    data = np.zeros_like(small_stack.data)
    for label, columns in ((RV, slice(0, 4)), (MYOCARDIUM, slice(4, 8)), (LV, slice(8, 16))):
        data[..., :10, columns] = 100 * label
    data[1, ..., 5:10, 8:16] = 0
    return replace(small_stack, data=data)


def test_of_a_film_both_ways_measure_end_diastole_and_end_systole(small_stack):
    film = beating(small_stack)
    volumes = measured(film, densify(film, linear, 2), Thresholds())
    full = 80 * 1.6 * 1.4 * 50 / 1000
    for function in (volumes.sparse, volumes.dense):
        assert (function.ed_frame, function.es_frame) == (0, 1)
        assert function.lv.edv_ml == pytest.approx(full)
        assert function.lv.ef_percent == pytest.approx(50)


def test_a_single_frame_has_volumes(small_stack):
    film = beating(small_stack)
    still = replace(film, data=film.data[1:], frame_times=np.zeros(1))
    volumes = measured(still, densify(still, linear, 2), Thresholds())
    assert volumes.dense.figures() == pytest.approx(volumes.sparse.figures())
    with pytest.raises(DataError):
        measured(replace(still, data=still.data * 0), densify(still, linear, 2), Thresholds())
