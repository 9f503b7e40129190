"""Feed damaged files to the readers: whatever comes in, a stack or a typed error comes out.

Sound inputs (NIfTI, DICOM, and DICOM with compressed pixels) are mutated at random (bits, bytes,
numbers in the header, pieces cut out, doubled or exchanged, before and after compression) and
read with a small budget, under a cap on memory and with a watchdog. What is read is written and
read again.

An input fails if anything but `calid.errors.CalidError` comes out, if it takes longer than
5 seconds of CPU time, if it needs more memory than the cap, if a library's own warning or log
reaches the user, or if what was read is not finite, too large, other than what is inspected, or
changed by writing.

    python benchmarks/fuzz.py --minutes 10
    python benchmarks/fuzz.py --kind nifti --only 1234    # one input again, with its traceback

Every input depends on the seed and its own number alone.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_inputs import makers

from calid import Reading, SliceStack, Volume, read, write_volume
from calid.errors import CalidError, CalidWarning, ResourceError

MAX_BYTES = 16 * 2**20  # asked of the reader
CAP = 512 * 2**20  # bytes of address space on top of what the imports take
PATIENCE = 5.0  # seconds of CPU time


class Slow(BaseException):
    """Raised by the watchdog; no handler of ordinary errors catches it."""


class BrokenError(Exception):
    """What was read breaks a promise."""


@dataclass
class Tally:
    """What came of all inputs."""

    inputs: int = 0
    read: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest_ms: float = 0.0


@contextmanager
def watched() -> Iterator[None]:
    """Raise `Slow` after `PATIENCE` of CPU time; end the process if it waits for ever."""

    def bark(*_: object) -> None:
        raise Slow

    signal.signal(signal.SIGPROF, bark)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    faulthandler.dump_traceback_later(60 * PATIENCE, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()


def examine(stack: SliceStack, folder: Path) -> None:
    """Check what was read, and that it survives being written."""
    if stack.data.nbytes > MAX_BYTES:
        raise BrokenError(f"{stack.data.nbytes} bytes were read")
    if not (np.isfinite(stack.data).all() and np.isfinite(stack.affine).all()):
        raise BrokenError("voxels or affine are not finite")
    volume = Volume(
        data=stack.data,
        affine=stack.affine,
        positions=stack.positions,
        acquired=np.ones(stack.n_slices, bool),
        frame_times=stack.frame_times,
        intensity=stack.intensity,
        rank=stack.rank,
    )
    write_volume(volume, folder / "out.nii")
    again = read(folder / "out.nii", max_bytes=MAX_BYTES)
    if again.data.tobytes() != stack.data.tobytes():
        raise BrokenError("voxels changed when written")
    if not np.allclose(again.affine, stack.affine, rtol=1e-4, atol=1e-2):
        raise BrokenError("the affine changed when written")


def attempt(path: Path, tally: Tally) -> str | None:
    """Read one input; a traceback or a sentence if it fails."""
    tally.inputs += 1
    started = time.process_time()
    found = None
    heard = BufferingHandler(1000)
    logging.root.addHandler(heard)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with watched():
                looked = Reading(max_bytes=MAX_BYTES).inspect(path)
                stack = read(path, max_bytes=MAX_BYTES)
                examine(stack, path.parent)
                if looked.stack is None or looked.stack.data.tobytes() != stack.data.tobytes():
                    raise BrokenError("inspect sees another stack than read")
            tally.read += 1
        except ResourceError as error:
            found = f"More memory than {CAP} bytes: {error}"
        except CalidError as error:
            tally.errors[type(error).__name__] += 1
        except Slow:
            found = f"Longer than {PATIENCE:g} s:\n{traceback.format_exc()}"
        except Exception:
            found = traceback.format_exc()
    for warning in caught:
        tally.warnings[warning.category.__name__] += 1
        if not issubclass(warning.category, CalidWarning):
            place = f"{Path(warning.filename).name}:{warning.lineno}"
            found = found or f"{warning.category.__name__} at {place}: {warning.message}"
    for record in heard.buffer:
        found = found or f"Logged by {record.name}: {record.getMessage()}"
    logging.root.removeHandler(heard)
    took = 1000 * (time.process_time() - started)
    tally.slowest_ms = max(tally.slowest_ms, round(took, 1))
    return found


def fuzz(kind: str, seed: int, numbers: Iterator[int], deadline: float, keep: Path | None) -> Tally:
    """Try inputs until the numbers or the time run out."""
    made, tally = makers(kind), Tally()
    # In memory where there is such a place: the disk is not what is tested.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        for number in numbers:
            if time.monotonic() > deadline:
                break
            name = sorted(made)[number % len(made)]
            folder = Path(scratch, "input")
            folder.mkdir()
            path = made[name](folder, random.Random(f"{seed} {name} {number}"))
            found = attempt(path, tally)
            if found is not None:
                tally.failures.append({"kind": name, "number": number, "what": found})
                if keep is not None:
                    shutil.copytree(folder, keep / f"{name}-{number}", dirs_exist_ok=True)
            shutil.rmtree(folder)
    return tally


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Fuzz, print one JSON object, and exit with 1 if an input failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--inputs", type=int, default=2**62, help="stop after this many")
    parser.add_argument("--kind", choices=("nifti", "dicom", "packed", "all"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="try this one input and show its traceback")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that fail")
    options = parser.parse_args()
    numbers = range(options.inputs) if options.only is None else [options.only]
    started = time.monotonic()
    before = peak_bytes()
    if sys.platform == "linux":
        # This process may grow by no more than the cap; beyond it there is a MemoryError.
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + CAP
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    deadline = started + 60 * options.minutes
    tally = fuzz(options.kind, options.seed, iter(numbers), deadline, options.keep)
    counts = {
        "errors": dict(tally.errors.most_common()),
        "warnings": dict(tally.warnings.most_common()),
        "peak_mib_above_start": round((peak_bytes() - before) / 2**20, 1),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(vars(tally) | counts, indent=2))
    sys.exit(bool(tally.failures))


if __name__ == "__main__":
    main()
