from __future__ import annotations

import torch

from calid.data.sampling import seeded


def test_seeds_depend_on_every_key_and_its_place() -> None:
    keys = [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 1, 0), (0, 0, 2)]
    streams = [tuple(torch.rand(2, generator=seeded(*k)).tolist()) for k in keys]
    assert len(set(streams)) == len(keys)
    assert streams[0] == tuple(torch.rand(2, generator=seeded(0, 0, 1)).tolist())
