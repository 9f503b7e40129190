"""How much memory a reconstruction takes: known before it starts, halved when it runs out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from calid.errors import ResourceError, UsageError
from calid.geometry.grid import NetworkGrid
from calid.stack import SliceStack

__all__ = ["AT_ONCE", "Demand", "available_memory", "check_memory", "fit_memory", "in_parts"]

AT_ONCE = 8
"""Most slices that go through a network together. More are not faster, but take more memory."""

LIBRARIES = 500e6
"""Bytes of the interpreter, its libraries and the networks' parameters."""

CODING = 500.0
"""Bytes per pixel of the networks' grid and slice in the autoencoder."""

ALIGNING = 1000.0
"""Bytes per pixel of the networks' grid and target in the interpolator."""


@dataclass(frozen=True)
class Demand:
    """Memory that a reconstruction takes at its peak, in bytes.

    The constants are peaks measured by ``benchmarks/growth.py`` with a margin, in float32 on a
    CPU; other precisions need less.

    Parameters
    ----------
    arrays
        Stack, dense volume, and one frame's samples: in main memory.
    pixels
        Of a slice on the networks' grid.
    targets
        Of one gap.
    divisible
        Whether the targets of a gap can go through the interpolator in parts.
    together
        Frames of a target that go through the interpolator at once.
    """

    arrays: float
    pixels: int
    targets: int
    divisible: bool = True
    together: int = 1

    @classmethod
    def of(
        cls,
        stack: SliceStack,
        factor: int,
        samples: int,
        uncertainty: bool = False,
        divisible: bool = True,
        together: int = 1,
    ) -> Demand:
        """Demand of a stack cut into ``factor`` steps a gap, with ``samples`` drawn.

        With more than one frame ``together``, gaps are filled one after the other instead of
        frames.
        """
        grid = NetworkGrid.of(stack.shape[2:], stack.pixel_spacing)
        left, right, top, bottom = grid.padding
        (height, _), (width, _) = grid.network
        pixels = (height + top + bottom) * (width + left + right)
        frames, slices, rows, columns = stack.shape
        generated = (slices - 1) * (factor - 1)
        dense = frames * (generated + slices) * rows * columns
        arrays = 2.0 * stack.data.nbytes + dense * stack.data.itemsize
        arrays += 4.0 * dense if uncertainty else 0.0
        # What is filled in one go, a frame or a gap of all frames: its samples in float32, what
        # averaging them makes, and one sample on the networks' grid before and after it is
        # turned back.
        filled = frames * (factor - 1) if together > 1 else generated
        arrays += 4.0 * filled * rows * columns * (max(samples, 1) + (8 if uncertainty else 4))
        arrays += 8.0 * (filled + slices) * pixels
        if together > 1:
            # The film as shown to the networks, and its encoded slices in every orientation
            # that the samples take.
            shown = 1.0 * frames * slices
            arrays += 8.0 * shown * rows * columns + 8.0 * filled * pixels
            arrays += (12.0 + 6.0 * min(max(samples, 1), 8)) * shown * pixels
        return cls(arrays, pixels, factor - 1, divisible, together)

    def networks(self, at_once: int) -> float:
        """Bytes on the networks' device with this many slices together."""
        size = max(1, at_once // self.together)
        aligned = min(size, self.targets) if self.divisible else self.targets
        aligned *= self.together
        return self.pixels * (CODING * max(at_once, min(AT_ONCE, 2 * aligned)) + ALIGNING * aligned)

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


def check_memory(demand: Demand, max_memory: float | None, device: torch.device) -> int:
    """How many slices can go through the networks together.

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
        raise UsageError("--max-memory", f"{max_memory} GB is no limit.", "Give GB above 0.")
    limit = available_memory() if max_memory is None else 1e9 * max_memory
    limit = float("inf") if limit is None else limit
    shared = device.type != "cuda"
    free = limit if shared else float(torch.cuda.mem_get_info(device)[0])
    at_once = AT_ONCE
    while True:
        networks = demand.networks(at_once)
        total = LIBRARIES + demand.arrays + (networks if shared else 0.0)
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
        "Use a lower --factor, fewer --samples or fewer frames"
        + (", --frame-by-frame" if demand.together > 1 else "")
        + ", or raise --max-memory.",
    )


def fit_memory(
    demand: Demand, max_memory: float | None, device: torch.device, least: int = 8
) -> tuple[Demand, int]:
    """A demand that memory suffices for, and how many slices can go through the networks.

    Parameters
    ----------
    demand
        Of a frame, or of a film with as many frames together as are wanted.
    max_memory, device
        As `check_memory`.
    least
        Fewest frames together that films are left with.

    Raises
    ------
    UsageError, ResourceError
        As `check_memory`, if even that takes too much.
    """
    while demand.together > least:
        try:
            return demand, check_memory(demand, max_memory, device)
        except ResourceError:
            demand = replace(demand, together=max(least, demand.together // 2))
    return demand, check_memory(demand, max_memory, device)


def in_parts(
    run: Callable[[slice], Tensor], count: int, size: int, divisible: bool = True
) -> list[Tensor]:
    """Results of ``run`` on consecutive slices of a range; smaller ones when memory runs out.

    Parameters
    ----------
    run
        Given a slice of ``range(count)``.
    size
        Of a part, to begin with.
    divisible
        Whether parts can be smaller.

    Raises
    ------
    ResourceError
        If memory runs out and parts can be no smaller.
    """
    out: list[Tensor] = []
    done = 0
    while done < count:
        try:
            out.append(run(slice(done, min(done + size, count))))
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if size == 1 or not divisible:
                raise ResourceError(
                    "memory",
                    f"Memory ran out with {min(size, count)} slice(s) in the networks.",
                    "Close other programs, use --device cpu, or crop the stack.",
                ) from error
        else:
            done += size
            continue
        # Here the error, and with it every tensor of the attempt, is gone.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        size = -(-min(size, count) // 2)
    return out


def _is_out_of_memory(error: Exception) -> bool:
    """Torch raises a plain RuntimeError when main memory runs out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "not enough memory")
    )
