"""Feed damaged files to the readers: whatever comes in, a stack or a typed error comes out.

Sound NIfTI and DICOM inputs are mutated at random (bits, bytes, numbers in the header, pieces
cut out, doubled or exchanged, before and after compression) and read with a small budget, under
a cap on memory and with a watchdog. What is read is written and read again.

An input fails if anything but `calid.errors.CalidError` comes out, if it takes longer than
5 seconds of CPU time, if it needs more memory than the cap, if a library's own warning reaches
the user, or if what was read is not finite, too large, or changed by writing.

    python benchmarks/fuzz.py --minutes 10
    python benchmarks/fuzz.py --kind nifti --only 1234    # one input again, with its traceback

Every input depends on the seed and its own number alone.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import importlib.util
import io
import json
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from calid.errors import CalidError, CalidWarning, ResourceError
from calid.io import read, write_volume
from calid.stack import SliceStack, Volume

MAX_BYTES = 16 * 2**20  # asked of the reader
CAP = 512 * 2**20  # bytes of address space on top of what the imports take
PATIENCE = 5.0  # seconds of CPU time
NUMBERS = (0, 1, -1, 2, 3, 5, 7, 127, 128, 255, 256, 348, 540, 32767, -32768, 65535, 2**31 - 1)
NUMBERS += (-(2**31), 2**32 - 1, 2**40, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e-45, 3e38, -3e38, 1e6, 0.5, float("inf"), float("nan"))

Bytes = bytes | bytearray


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
    slowest: float = 0.0

    def report(self, started: float, before: int) -> dict[str, Any]:
        """Everything for printing."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "inputs": self.inputs,
            "read": self.read,
            "errors": dict(self.errors.most_common()),
            "warnings": dict(self.warnings.most_common()),
            "failures": self.failures,
            "slowest_ms": round(1000 * self.slowest, 1),
            "peak_mib_above_start": round((peak - before) / 2**20, 1),
            "seconds": round(time.monotonic() - started, 1),
        }


# Sound inputs -------------------------------------------------------------------------------


def nifti_seeds() -> list[bytes]:
    """Uncompressed NIfTI files of both versions, byte orders and several types."""
    rng = np.random.default_rng(0)
    made = []
    for kind, order, dtype, shape in (
        (nib.Nifti1Header, "<", "i2", (6, 5, 4)),
        (nib.Nifti1Header, ">", "f4", (4, 3, 3, 2)),
        (nib.Nifti1Header, "<", "u1", (5, 4, 2, 3)),
        (nib.Nifti2Header, "<", "f8", (3, 4, 3)),
        (nib.Nifti2Header, ">", "u2", (3, 4, 3, 1)),
    ):
        header = kind(endianness=order)
        header.set_data_dtype(dtype)
        header.set_data_shape(shape)
        affine = np.diag([-1.5, -1.25, 8.0, 1.0])
        affine[:3, 3] = (40, -30, 12)
        header.set_sform(affine, 1)
        header.set_qform(affine, 1)
        header.set_xyzt_units("mm", "sec")
        if len(shape) > 3:
            header["pixdim"][4] = 0.04
        header["vox_offset"] = int(header["sizeof_hdr"]) + 4
        voxels = rng.integers(0, 200, shape).astype(np.dtype(dtype).newbyteorder(order))
        made.append(header.binaryblock + bytes(4) + voxels.tobytes("F"))
    return made


def dicom_seed() -> dict[str, bytes]:
    """A film of three slices and two frames, one file an image."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    study, series, frame = (generate_uid(entropy_srcs=[name]) for name in ("a", "b", "c"))
    files = {}
    rng = np.random.default_rng(0)
    for number in range(6):
        height, phase = divmod(number, 2)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        image.SOPClassUID = MRImageStorage
        image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.FrameOfReferenceUID = frame
        image.Modality, image.SeriesDescription = "MR", "cine_sax"
        image.SeriesNumber, image.InstanceNumber = 5, number + 1
        image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        image.Rows, image.Columns = 8, 6
        image.PixelSpacing, image.SliceThickness = [1.4, 1.4], 8
        image.SpacingBetweenSlices = 10
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.ImagePositionPatient = [-60, -70, 10 * height]
        image.TriggerTime, image.CardiacNumberOfImages = 40 * phase, 2
        image.RescaleSlope, image.RescaleIntercept = 1, 0
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
        image.PixelRepresentation = 0
        image.PixelData = rng.integers(0, 900, (8, 6)).astype("<u2").tobytes()
        buffer = io.BytesIO()
        image.save_as(buffer, enforce_file_format=True)
        files[f"IM{number:03d}.dcm"] = buffer.getvalue()
    return files


# Mutations ----------------------------------------------------------------------------------


def flip_bits(raw: bytearray, rng: random.Random) -> None:
    """Flip one bit or a few."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def set_bytes(raw: bytearray, rng: random.Random) -> None:
    """Overwrite neighbouring bytes."""
    start = rng.randrange(len(raw))
    for place in range(start, min(len(raw), start + rng.choice((1, 2, 4, 16)))):
        raw[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def set_number(raw: bytearray, rng: random.Random) -> None:
    """Put a number that often breaks arithmetic at a place where a number may be."""
    order, kind = rng.choice("<>"), rng.choice("hiqfd")
    size = struct.calcsize(kind)
    place = 2 * rng.randrange(max(1, min(len(raw), 540) - size) // 2 + 1)
    if kind in "fd":
        packed = struct.pack(order + kind, rng.choice(FLOATS))
    else:
        packed = (rng.choice(NUMBERS) % 256**size).to_bytes(
            size, "little" if order == "<" else "big"
        )
    raw[place : place + size] = packed


def truncate(raw: bytearray, rng: random.Random) -> None:
    """Drop the end."""
    del raw[rng.randrange(len(raw)) :]


def lengthen(raw: bytearray, rng: random.Random) -> None:
    """Add zeros or noise at the end."""
    raw += rng.choice((bytes(64), rng.randbytes(64), bytes(2**21)))


def cut_out(raw: bytearray, rng: random.Random) -> None:
    """Drop a piece."""
    start = rng.randrange(len(raw))
    del raw[start : start + rng.choice((1, 2, 8, 100))]


def double(raw: bytearray, rng: random.Random) -> None:
    """Repeat a piece, once or often."""
    start = rng.randrange(len(raw))
    raw[start:start] = raw[start : start + rng.choice((1, 4, 100))] * rng.choice((1, 1, 50))


def exchange(raw: bytearray, rng: random.Random) -> None:
    """Exchange two pieces."""
    size = rng.choice((1, 2, 4, 32))
    one, two = (rng.randrange(max(1, len(raw) - size)) for _ in range(2))
    if abs(one - two) >= size:
        raw[one : one + size], raw[two : two + size] = (
            raw[two : two + size],
            raw[one : one + size],
        )


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits,
    set_bytes,
    set_number,
    set_number,
    set_number,
    truncate,
    lengthen,
    cut_out,
    double,
    exchange,
)


def mutated(content: Bytes, rng: random.Random) -> bytes:
    """A copy with one or more kinds of damage."""
    raw = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if raw:
            rng.choice(MUTATIONS)(raw, rng)
    return bytes(raw)


# Inputs -------------------------------------------------------------------------------------

Maker = Callable[[Path, random.Random], Path]
"""Writes one damaged input into an empty folder and returns its path."""


def nifti_maker() -> Maker:
    """Damage before or after compression, or without any."""
    seeds = nifti_seeds()

    def make(folder: Path, rng: random.Random) -> Path:
        way = rng.choice((0, 0, 0, 1, 1, 2, 3))
        raw = rng.choice(seeds)
        if way < 2:  # damage inside, sound around
            raw = mutated(raw, rng)
        path = folder / ("a.nii.gz" if way else "a.nii")
        if way:
            raw = gzip.compress(raw, compresslevel=rng.choice((0, 6)), mtime=0)
        if way > 1:
            raw = mutated(raw, rng)
        path.write_bytes(raw)
        return path

    return make


def dicom_maker() -> Maker:
    """Damage in one file, in a folder or zip of files, or in the zip itself."""
    seed = dicom_seed()

    def make(folder: Path, rng: random.Random) -> Path:
        files = dict(seed)
        way = rng.randrange(4)
        if way < 3:
            names = sorted(files)
            for name in rng.sample(names, rng.choice((1, 1, 2, len(names)))):
                files[name] = mutated(files[name], rng)
        if way == 0:
            path = folder / "IM.dcm"
            path.write_bytes(files[rng.choice(sorted(files))])
            return path
        if way == 1:
            path = folder / "exam"
            path.mkdir()
            for name, content in files.items():
                (path / name).write_bytes(content)
            return path
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        path = folder / "exam.zip"
        path.write_bytes(buffer.getvalue() if way == 2 else mutated(buffer.getvalue(), rng))
        return path

    return make


def makers(kind: str) -> dict[str, Maker]:
    """Makers of the kinds that this version reads, by name."""
    made: dict[str, Maker] = {}
    if kind in ("nifti", "all"):
        made["nifti"] = nifti_maker()
    if kind in ("dicom", "all") and importlib.util.find_spec("calid.io.dicom"):
        made["dicom"] = dicom_maker()
    return made


# One input ----------------------------------------------------------------------------------


@contextmanager
def watched() -> Iterator[None]:
    """Raise `Slow` when the patience is over, in CPU time: a busy machine is no fault of ours.

    What waits for ever, or hangs where no signal is heard, ends the process.
    """

    def bark(*_: object) -> None:
        raise Slow

    signal.signal(signal.SIGPROF, bark)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    faulthandler.dump_traceback_later(12 * PATIENCE, exit=True)
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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with watched():
                stack = read(path, max_bytes=MAX_BYTES)
                examine(stack, path.parent)
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
    tally.slowest = max(tally.slowest, time.process_time() - started)
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


def cap_memory() -> None:
    """Let this process grow by no more than `CAP`; an allocation beyond it is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + CAP
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    """Fuzz, print one JSON object, and exit with 1 if an input failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--inputs", type=int, default=2**62, help="stop after this many")
    parser.add_argument("--kind", choices=("nifti", "dicom", "all"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="try this one input and show its traceback")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that fail")
    options = parser.parse_args()
    numbers = range(options.inputs) if options.only is None else [options.only]
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if sys.platform == "linux":
        cap_memory()
    deadline = started + 60 * options.minutes
    tally = fuzz(options.kind, options.seed, iter(numbers), deadline, options.keep)
    print(json.dumps(tally.report(started, before), indent=2))
    sys.exit(bool(tally.failures))


if __name__ == "__main__":
    main()
