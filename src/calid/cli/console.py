"""What the terminal shows: results on stdout, progress, warnings and errors on stderr."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from calid.errors import CalidError, CalidWarning
from calid.progress import progress_bar

__all__ = ["frames_bar", "say", "show_error", "warnings_shown"]


def say(line: str) -> None:
    """One line of result on stdout, never wrapped, so that paths can be copied."""
    Console(soft_wrap=True, highlight=False, markup=False).print(line)


def show_error(error: CalidError) -> None:
    """What it was about, the rule, the remedy: three lines on stderr."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("[bold red]error[/]", escape(error.subject), markup=True)
    console.print("  " + error.rule, markup=False)
    console.print("  " + error.remedy, style="green", markup=False)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show the package's warnings as one line each, instead of Python's two with a path."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always", CalidWarning)
        fallback = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: object) -> None:
            if issubclass(category, CalidWarning):
                console.print("[yellow]warning[/]", escape(str(message)), markup=True)
            else:
                fallback(message, category, *rest)  # type: ignore[arg-type]

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def frames_bar(total: int, what: str = "reconstructing") -> Iterator[Callable[[int], None]]:
    """Progress bar with the time left; gives a function that takes the number done."""
    with progress_bar(disable=total == 0) as progress:
        job = progress.add_task(what, total=total)
        yield lambda done: progress.update(job, completed=done)
