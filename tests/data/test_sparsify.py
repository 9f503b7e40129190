from __future__ import annotations

import pytest

from calid.data.sparsify import hide_alternate


@pytest.mark.parametrize("slices", range(1, 14))
def test_the_benchmark_never_hides_an_end_slice(slices: int) -> None:
    kept, hidden = hide_alternate(slices)
    assert kept.tolist() == list(range(0, slices, 2))
    assert 0 not in hidden
    assert slices - 1 not in hidden
    assert all(h - 1 in kept and h + 1 in kept for h in hidden)
    assert len(hidden) == max(0, (slices - 1) // 2)
