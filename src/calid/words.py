"""Numbers in words, the same in messages, on the terminal and in reports."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["count", "span"]


def span(values: Iterable[float]) -> str:
    """``10``, or ``8 to 20`` of values that differ in four digits."""
    every = [float(value) for value in values]
    least, most = f"{min(every):.4g}", f"{max(every):.4g}"
    return least if least == most else f"{least} to {most}"


def count(number: int, what: str) -> str:
    """``1 slice``, ``2 slices``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
