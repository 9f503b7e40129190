"""A log of a run as JSON lines, without anything in it that could name a patient.

No line holds a message: the text of an error or a warning can hold a path, and a path can hold a
name. For the same reason only numbers and switches of the options are logged.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from calid.cli.console import each_warning
from calid.errors import CalidError, OutputError, UsageError

__all__ = ["log_refusal", "logged"]

ENDINGS = (".jsonl", ".json", ".log")


@contextmanager
def logged(verb: object, path: Path | None) -> Iterator[None]:
    """Log a verb's run to a file, if there is one: that it started, its warnings, how it ended.

    Raises
    ------
    OutputError
        If the log cannot be written.
    """
    if path is None:
        yield
        return
    verb = getattr(verb, "stage", verb)  # of a training
    fields = dataclasses.fields(verb) if dataclasses.is_dataclass(verb) else ()
    values = {field.name: getattr(verb, field.name) for field in fields}
    named = [*values.values(), getattr(verb, "sidecar", None)]
    several = (value if isinstance(value, tuple) else (value,) for value in named)
    log = _Log(path, [one for value in several for one in value if isinstance(one, Path)])
    started, seen = time.perf_counter(), 0

    def warned(message: str, category: type[Warning]) -> bool:
        nonlocal seen
        seen += 1
        log.add("warning", "warning", error=category.__name__)
        return False

    def end() -> dict[str, object]:
        return {"seconds": round(time.perf_counter() - started, 3), "warnings": seen}

    log.add(
        "info",
        "start",
        verb=re.sub(r"(?<!^)(?=[A-Z])", " ", type(verb).__name__).lower(),  # `train paper`
        version=version("calid"),
        options={n: v for n, v in values.items() if isinstance(v, bool | int | float)},
    )
    try:
        with each_warning(warned):
            yield
    except BaseException as error:
        # The run has failed already: a full disk must not hide why.
        with suppress(OutputError):
            log.add("error", "error", **end(), **_failure(error))
        raise
    log.add("info", "finish", **end(), exit_code=0)


def log_refusal(arguments: Sequence[str], exit_code: int) -> None:
    """Log a command line that could not be understood, if it names a log."""
    name = ""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if option.replace("_", "-") == "--log-json":
            name = value if equals else following
    if name:
        with suppress(OutputError):
            log = _Log(Path(name), [])
            log.add("error", "error", error=UsageError.__name__, exit_code=exit_code)


class _Log:
    """A file of JSON lines, which may be none of the paths of the run."""

    def __init__(self, path: Path, others: Sequence[Path]) -> None:
        from calid.io.atomic import check_output

        check_output(path, others, ENDINGS)
        self.path = path.absolute()

    def add(self, level: str, event: str, **fields: object) -> None:
        """Append one line; it is on disk when this returns."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "level": level, "event": event, **fields})
        remedy = "Free some space or choose another folder."
        with (
            OutputError.of_system(self.path, "The log could not be written", remedy),
            self.path.open("a", encoding="utf-8") as file,
        ):
            file.write(line + "\n")


def _failure(error: BaseException) -> dict[str, object]:
    """Class, exit code, and the line of the package that raised it."""
    code: object = 130 if isinstance(error, KeyboardInterrupt) else 1
    if isinstance(error, CalidError):
        code = error.exit_code
    elif isinstance(error, SystemExit):
        code = error.code
    while isinstance(error, CalidError) and isinstance(error.__cause__, CalidError):
        error = error.__cause__  # the same error, raised again with a better name
    places = [
        f"{frame.f_globals['__name__']}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).startswith("calid.")
    ]
    where = places[-1] if places else None
    return {"error": type(error).__name__, "where": where, "exit_code": code}
