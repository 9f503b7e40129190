"""Decode compressed pixels in a process of its own.

Decoders print messages about damaged streams, and some streams crash the process. This file is
both sides: `Decoder`, and the code of the other process, which imports nothing from the package.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from typing import IO, Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array

__all__ = ["Decoder"]

_REQUEST, _ANSWER = struct.Struct("<qq"), struct.Struct("<q")
"""File size in bytes and frame number, -1 without a frame axis; size of an array in bytes."""


class Decoder:
    """A process that decodes, started when it is first needed; to be used in a with block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def decode(self, content: bytes, frame: int | None) -> NDArray[Any]:
        """Stored values of one frame of a DICOM file; a `ValueError` if they cannot be decoded."""
        if self._process is None:
            pipe = subprocess.PIPE
            # -P keeps this folder off the path: its modules would hide others, such as inspect.
            command = [sys.executable, "-P", __file__]
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
            )
        into, out = self._process.stdin, self._process.stdout
        assert into is not None
        assert out is not None
        try:
            into.write(_REQUEST.pack(len(content), -1 if frame is None else frame) + content)
            into.flush()
            answer = out.read(_ANSWER.unpack(out.read(_ANSWER.size))[0])
            return np.asarray(np.load(io.BytesIO(answer)))
        except (OSError, struct.error, ValueError, EOFError) as error:
            raise ValueError("no pixels") from error


def _serve(into: IO[bytes], out: IO[bytes]) -> None:
    """Answer requests until there are none."""
    while head := into.read(_REQUEST.size):
        size, frame = _REQUEST.unpack(head)
        answer = io.BytesIO()
        try:
            data = pydicom.dcmread(io.BytesIO(into.read(size)))
            index = None if frame < 0 else frame
            np.save(answer, pixel_array(data, index=index, raw=True))
        except Exception:  # decoders raise many things
            answer = io.BytesIO()
        out.write(_ANSWER.pack(answer.tell()) + answer.getvalue())
        out.flush()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what decoders print is no answer
        _serve(sys.stdin.buffer, answers)
