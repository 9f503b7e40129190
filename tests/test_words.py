from __future__ import annotations

import numpy as np

from calid.words import count, span


def test_a_span_is_one_number_where_there_is_one():
    assert span([10.0, 10.0]) == "10"
    assert span(np.array([20, 8.12345])) == "8.123 to 20"
    assert span([9.99999, 10.00001]) == "10"


def test_one_and_many():
    assert [count(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
