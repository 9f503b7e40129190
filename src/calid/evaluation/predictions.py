"""What methods answered, kept on disk: an evaluation that was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from calid.evaluation.case import Case
from calid.evaluation.contender import Contender
from calid.io.atomic import atomic, check_folder

__all__ = ["Predictions"]


class Predictions:
    """A folder of answers, each under what it depends on: the case and the method's identity.

    Parameters
    ----------
    folder
        Made when the first answer is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, contender: Contender, case: Case) -> NDArray[np.float32]:
        """The method's answer ``(frames, targets, height, width)``, in float16 precision.

        Asked for unless it is there already.
        """
        path = self.folder / contender.name / f"{case.name}-{_key(contender, case)}.npz"
        kept = _read(path)
        if kept is None:
            kept = contender.answer(case).astype(np.float16)
            check_folder(path.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as file:
                np.savez_compressed(file, answer=kept)
        return kept.astype(np.float32)


def _key(contender: Contender, case: Case) -> str:
    digest = hashlib.sha256(contender.identity.encode())
    for part in (case.images, case.positions, case.targets, np.array(case.spacing)):
        digest.update(str(part.shape).encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> NDArray[np.float16] | None:
    """An answer, or none if there is none or the file is damaged."""
    try:
        # Opened here: numpy leaves a file that is no archive open.
        with path.open("rb") as file, np.load(file) as store:
            return np.asarray(store["answer"])
    except (OSError, BadZipFile, zlib.error, KeyError, ValueError, EOFError):
        return None
