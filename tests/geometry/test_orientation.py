from __future__ import annotations

import pytest
import torch

from calid.geometry.orientation import turn, turn_back


@pytest.mark.slow
def test_turning_back_undoes_turning():
    x = torch.arange(12.0).view(1, 3, 4)
    turned = [turn(x, n) for n in range(8)]
    assert len({tuple(t.flatten().tolist()) + tuple(t.shape) for t in turned}) == 8
    for n, t in enumerate(turned):
        torch.testing.assert_close(turn_back(t, n), x)
