"""One training in several processes, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

__all__ = [
    "first_process_first",
    "own_device",
    "process_count",
    "process_group",
    "process_rank",
    "share_of_process",
]

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: only the first one validates."""


def process_rank() -> int:
    """Number of this process among all; the one with 0 writes."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share_of_process(batch: int) -> int:
    """Examples per step for this process, at least one; all processes get the same number."""
    return max(1, batch // process_count())


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process; any other device as it is.

    Processes on one machine that shared a GPU could not average their gradients.
    """
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    return own


@contextmanager
def process_group(device: torch.device) -> Iterator[bool]:
    """Connect the processes if there are several, and say whether there are.

    To use the group more than once, keep it open: a second group would find addresses that the
    first has left behind, and might wait for ever.
    """
    if process_count() < 2:
        yield False
        return
    inner = dist.is_initialized()
    if not inner:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield True
        dist.barrier()
    finally:
        if not inner:
            dist.destroy_process_group()


@contextmanager
def first_process_first(device: torch.device) -> Iterator[None]:
    """Run the block in the first process, and then in the others."""
    with process_group(device) as parallel:
        if parallel and process_rank() > 0:
            dist.barrier()
        yield
        if parallel and process_rank() == 0:
            dist.barrier()
