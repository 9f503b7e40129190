"""How much memory a reconstruction takes: known before it starts, halved when it runs out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from calid.errors import ResourceError, UsageError
from calid.geometry.pixels import PixelGrid
from calid.stack import SliceStack

__all__ = ["AT_ONCE", "IMAGES_AT_ONCE", "Demand", "Parts", "available_memory", "fit_memory"]

AT_ONCE = 8
"""Most latents that go through a network together. More are not faster, but take more memory."""

IMAGES_AT_ONCE = 2
"""Most images that are encoded or decoded together, likewise."""

LIBRARIES = 480e6
"""Bytes of the interpreter, its libraries and the networks' parameters."""

AUTOENCODER = 500.0
"""Bytes per pixel of an image that is encoded or decoded."""

TARGET = 250.0
"""Bytes per pixel of a target while it is registered; in the U-Nets it takes less."""


@dataclass(frozen=True)
class Demand:
    """Memory that a reconstruction takes at its peak, in bytes.

    The constants are peaks measured by ``benchmarks/growth.py`` with a margin, in float32 on a
    CPU; other precisions need less.

    Parameters
    ----------
    arrays
        Bytes of the stack, the dense volume and the networks' copies of the stack, in main memory.
    pixels
        Pixels of a slice on the interpolator's grid.
    frames
        Frames of the film: a target is registered in all of them at once.
    targets
        Targets in one gap.
    samples
        Samples of every target.
    """

    arrays: float
    pixels: int
    frames: int
    targets: int
    samples: int = 1

    @classmethod
    def of(
        cls, stack: SliceStack, factor: int, samples: int = 0, uncertainty: bool = False
    ) -> Demand:
        """Demand of a stack cut into ``factor`` steps a gap, with ``samples`` drawn."""
        grid = PixelGrid.of(stack.shape, stack.pixel_spacing)
        left, right, top, bottom = grid.padding
        pixels = (grid.size[0] + top + bottom) * (grid.size[1] + left + right)
        frames, slices, rows, columns = stack.shape
        dense = frames * ((slices - 1) * factor + 1) * rows * columns
        arrays = 2.0 * stack.data.nbytes + dense * stack.data.itemsize
        arrays += 4.0 * dense if uncertainty else 0.0
        # In window units in float32, twice, and one frame of them in float64; then their latents.
        shown = frames * slices
        arrays += (8.0 * shown + 8.0 * slices) * rows * columns + 7.0 * shown * pixels
        return cls(arrays, pixels, frames, max(factor - 1, 1), max(samples, 1))

    def networks(self, at_once: int) -> float:
        """Bytes on the networks' device with this many images together."""
        registered = self.frames * min(self.targets, max(1, at_once // self.frames))
        answers = 12.0 * self.samples * registered
        return self.pixels * (AUTOENCODER * IMAGES_AT_ONCE + TARGET * registered + answers)

    def total(self, at_once: int = AT_ONCE) -> float:
        """Bytes of the whole process with the networks on the CPU."""
        return LIBRARIES + self.arrays + self.networks(at_once)


def available_memory() -> float | None:
    """Bytes that this process can have in all, as far as the system says."""
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        own = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        free = int(facts["MemAvailable"].split()[0]) * 1024 + own
    except (OSError, KeyError, ValueError):
        return _physical_memory()
    try:  # of a container
        return float(min(free, int(Path("/sys/fs/cgroup/memory.max").read_text())))
    except (OSError, ValueError):
        return float(free)


def _physical_memory() -> float | None:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return None


def fit_memory(demand: Demand, max_memory: float | None, device: torch.device) -> int:
    """How many images can go through the networks together.

    Parameters
    ----------
    max_memory
        GB (10^9 bytes) for the process; none for what is available.
    device
        Of the networks. A GPU's free memory bounds what is there.

    Returns
    -------
    int
        `AT_ONCE`, or less where memory is short.

    Raises
    ------
    UsageError
        If ``max_memory`` is not positive.
    ResourceError
        If even one at a time takes too much.
    """
    if max_memory is not None and not 0 < max_memory < float("inf"):
        raise UsageError("`max_memory`", f"{max_memory} GB is no limit.", "Give GB above 0.")
    limit = available_memory() if max_memory is None else 1e9 * max_memory
    limit = float("inf") if limit is None else limit
    shared = device.type != "cuda"
    free = limit if shared else float(torch.cuda.mem_get_info(device)[0])
    at_once = AT_ONCE
    while True:
        networks = demand.networks(at_once)
        total = demand.total(at_once) - (0.0 if shared else networks)
        if total <= limit and networks <= free:
            return at_once
        if at_once == 1:
            break
        at_once //= 2
    needed, given = (total, limit) if total > limit else (networks, free)
    raise ResourceError(
        "memory",
        f"This reconstruction takes about {needed / 1e9:.2g} GB and {given / 1e9:.2g} GB "
        + ("are available." if max_memory is None or needed == networks else "are allowed."),
        "Use a lower `factor`, fewer `samples` or fewer frames, or raise `max_memory`.",
    )


class Parts:
    """Consecutive slices of a range, in smaller parts from where memory runs out.

    >>> done = []
    >>> for part in Parts(5, 2):
    ...     with part as some:
    ...         done.append(some)
    >>> done
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]

    A part within which memory ran out comes again, half as long.

    Parameters
    ----------
    count
        Length of the range.
    size
        Of a part, to begin with.

    Raises
    ------
    ResourceError
        If memory runs out for a part of one.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size, self.done, self.short = count, size, 0, False

    def __iter__(self) -> Iterator[Parts]:
        while self.done < self.count:
            yield self

    def __enter__(self) -> slice:
        # Not earlier: only now are all tensors of the failed attempt gone.
        if self.short and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        self.short = False
        return slice(self.done, min(self.done + self.size, self.count))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            self.done += self.size
            return False
        if not _is_out_of_memory(error):
            return False
        size = min(self.size, self.count)
        if size == 1:
            raise ResourceError(
                "memory",
                "Memory ran out with 1 slice(s) in the networks.",
                "Close other programs, use `device` cpu, or crop the stack.",
            ) from error
        self.size, self.short = -(-size // 2), True
        return True


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch raises a plain RuntimeError when main memory runs out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "not enough memory")
    )
