from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calid.baselines.nearest import nearest
from calid.errors import OutputError
from calid.inference.densify import densify
from calid.report.examples import sheet
from calid.report.figure import comparison, cuts
from calid.report.png import save_figure


@pytest.mark.slow
def test_the_figure_shows_three_planes_of_every_method_in_true_proportions(small_stack, tmp_path):
    from calid.baselines.linear import linear

    volume = densify(small_stack, linear, 4)
    figure = comparison(small_stack, volume)
    assert [a.get_title() for a in figure.axes[:3]] == ["as acquired", "linear", "CaLID"]
    assert len(figure.axes) == 9
    images = [axis.images[0] for axis in figure.axes]
    # This "CaLID" is linear, so their columns agree; as acquired does not.
    np.testing.assert_array_equal(images[1].get_array(), images[2].get_array())
    assert not np.array_equal(images[0].get_array(), images[1].get_array())
    left, right, bottom, top = images[3].get_extent()
    assert right - left == pytest.approx(41 * 1.4)
    assert bottom - top == pytest.approx(17 * 2.5)
    path = tmp_path / "cut.png"
    save_figure(figure, path)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_long_axis_cuts_go_through_the_heart_if_it_is_known_where_it_is(small_stack):
    volume = densify(small_stack, nearest, 2)
    height, width = volume.data.shape[2:]
    assert [plane.index[1:] for plane in cuts(volume)[1:]] == [
        (height // 2,),
        (slice(None), width // 2),
    ]
    found = replace(volume, region=((4, 10), (20, 30)))
    assert found.centre == (7, 25)
    assert [plane.index[1:] for plane in cuts(found)[1:]] == [(7,), (slice(None), 25)]


def test_a_figure_for_a_folder_that_is_not_there_is_refused(small_stack, tmp_path):
    figure = sheet({"a": np.ones((4, 4), np.float32)})
    with pytest.raises(OutputError):
        save_figure(figure, tmp_path / "absent" / "cut.png")
