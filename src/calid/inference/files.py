"""From file to file: a stack is read, its reconstruction and the record beside it are written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from calid.inference.model import Model, model_for
from calid.inference.options import Generation, Reading
from calid.inference.reconstruct import DEFAULTS, reconstruct
from calid.inference.record import run_record
from calid.io import write_volume
from calid.io.atomic import check_folder, check_output, make_folder
from calid.io.nifti import SUFFIXES, refuse_reconstruction
from calid.io.sidecar import sidecar_of, together, write_json

__all__ = ["reconstruct_file"]

AS_IT_IS = Reading()
"""Default options of reading."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


def reconstruct_file(
    source: Path,
    output: Path,
    wanted: Generation = DEFAULTS,
    reading: Reading = AS_IT_IS,
    *,
    model: Model | None = None,
    facts: Mapping[str, Any] = NOTHING,
) -> dict[str, Any]:
    """Reconstruct a stack as `calid reconstruct` does, and write volume and record.

    Both appear together, complete or not at all; older ones are replaced.

    Parameters
    ----------
    source
        What `calid.read` takes.
    output
        NIfTI file, ``.nii`` or ``.nii.gz``. Its folder is made if it is missing.
    wanted, model
        As in `calid.reconstruct`.
    reading
        How the input is read.
    facts
        Added to the record.

    Returns
    -------
    dict
        The record, which `calid.record_of` finds beside the output.

    Raises
    ------
    InputError
        If the input cannot be read, or is a reconstruction itself.
    OutputError
        If the output is the input, or cannot be written.
    CalidError
        As `calid.read` and `calid.reconstruct`.
    """
    if output.parent.is_dir():
        check_output(output, [source], SUFFIXES)
    else:
        check_folder(output.parent)
    started = time.perf_counter()
    refuse_reconstruction(source)
    stack = reading.read(source)
    loaded = time.perf_counter()
    model = model or model_for(wanted)
    begun = time.perf_counter()
    volume = reconstruct(stack, wanted, model=model)
    seconds = {"read": loaded - started, "reconstruct": time.perf_counter() - begun}
    record: dict[str, Any] = {**run_record(volume, source, reading, seconds), **facts}
    make_folder(output.parent)
    with together() as write:
        record["files_sha256"] = {"output": write(output, partial(write_volume, volume))}
        # Last: a volume is complete once the record with its hash lies beside it.
        write(sidecar_of(output), partial(write_json, record))
    return record
