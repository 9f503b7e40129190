"""What the terminal shows: results on stdout, progress, warnings and errors on stderr."""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape

from calid.errors import CalidError, CalidWarning, OutputError
from calid.progress import progress_bar

__all__ = [
    "as_options",
    "each_warning",
    "frames_bar",
    "safe_streams",
    "say",
    "show_error",
    "warnings_shown",
]


class _Stream:
    """A terminal stream that raises an `OutputError` if it fails and is ``fatal``.

    If it is not fatal, text that cannot be written is dropped. ``stream`` is none if the process
    was started without it.
    """

    def __init__(self, stream: TextIO | None, fatal: bool) -> None:
        self._stream, self._fatal = stream, fatal
        self._gone = stream is None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files can be any bytes

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, act: str, *arguments: str) -> None:
        if self._gone or self._stream is None:
            return
        try:
            getattr(self._stream, act)(*arguments)
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._gone = True
            with suppress(OSError, ValueError):
                # What is still in its buffer must not fail again when Python ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if self._fatal:
                raise OutputError(
                    "standard output",
                    f"It could not be written: {getattr(error, 'strerror', None) or error}.",
                    "Files that were written are complete; "
                    "see that its reader or disk takes it all.",
                ) from error


@contextmanager
def safe_streams() -> Iterator[None]:
    """Standard output that fails with the package's own error, standard error that never does."""
    before = sys.stdout, sys.stderr
    sys.stdout = _Stream(sys.stdout, fatal=True)
    sys.stderr = _Stream(sys.stderr, fatal=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def as_options(message: str) -> str:
    """A message in which parameters stand as options: `max_memory` as ``--max-memory``.

    The package's errors and warnings name parameters of its functions in single backquotes.
    """
    return re.sub(r"`(\w+)`", lambda found: f"--{found[1].replace('_', '-')}", message)


def say(line: str) -> None:
    """One line of result on stdout, never wrapped, so that paths can be copied."""
    Console(soft_wrap=True, highlight=False, markup=False).print(line)


def show_error(error: CalidError) -> None:
    """What it was about, the rule, the remedy: three lines on stderr."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("[bold red]error[/]", escape(as_options(error.subject)), markup=True)
    console.print("  " + as_options(error.rule), markup=False)
    console.print("  " + as_options(error.remedy), style="green", markup=False)


@contextmanager
def each_warning(take: Callable[[str, type[Warning]], bool]) -> Iterator[None]:
    """Pass every warning to ``take``; show it as before unless ``take`` returns true."""
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: object) -> None:
            if not take(str(message), category):
                before(message, category, *rest)  # type: ignore[arg-type]

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show the package's warnings as one line each, instead of Python's two with a path."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)

    def show(message: str, category: type[Warning]) -> bool:
        ours = issubclass(category, CalidWarning)
        if ours:
            console.print("[yellow]warning[/]", escape(as_options(message)), markup=True)
        return ours

    with each_warning(show):
        warnings.simplefilter("always", CalidWarning)
        yield


@contextmanager
def frames_bar(total: int, what: str = "reconstructing") -> Iterator[Callable[[int], None]]:
    """Progress bar with the time left; gives a function that takes the number done."""
    with progress_bar(disable=total == 0) as progress:
        job = progress.add_task(what, total=total)
        yield lambda done: progress.update(job, completed=done)
