"""Fields of a DICOM header, whatever is in them.

Real headers hold values that the standard does not allow. One that is needed and cannot be
read counts as absent; all others do not matter.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import Dataset

__all__ = ["number", "numbers", "quiet", "text"]


def number(header: Dataset, keyword: str) -> float | None:
    """One finite number of a header, or none."""
    found = numbers(header, keyword, 1)
    return None if found is None else found[0]


def numbers(header: Dataset, keyword: str, count: int) -> list[float] | None:
    """``count`` finite numbers of a header, or none."""
    try:
        with quiet():
            value = header.get(keyword)
            if value is None:
                return None
            many = [value] if isinstance(value, str | int | float) else list(value)
            found = [float(v) for v in many]
    except Exception:  # a value of the wrong kind: pydicom raises many things
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def text(header: Dataset, keyword: str) -> str:
    """A field as text; empty if it is absent or cannot be read."""
    try:
        with quiet():
            return str(header.get(keyword, ""))
    except Exception:  # as in `numbers`
        return ""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's warnings and log, which quote values."""
    log = logging.getLogger("pydicom")
    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before
