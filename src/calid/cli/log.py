"""A log of a run as JSON lines, without anything in it that could name a patient."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from calid.errors import CalidError, OutputError, UsageError

__all__ = ["FIELDS", "log_refusal", "logged"]

FIELDS = ("verb", "version", "options", "seconds", "warnings", "error", "where", "exit_code")
"""What a line may hold beside time, level and event; everything else is dropped. No message is
among them: the text of an error or a warning can hold a path, and a path can hold a name."""

ENDINGS = (".jsonl", ".json", ".log")


@contextmanager
def logged(verb: object, path: Path | None) -> Iterator[None]:
    """Log a verb's run: that it started, its warnings, and how it ended.

    Parameters
    ----------
    verb
        The dataclass of a verb. Of its options only numbers and switches are logged.
    path
        File to append to; none for no log.

    Raises
    ------
    OutputError
        If the log cannot be written.
    """
    if path is None:
        yield
        return
    with _writing(path, _paths(verb)) as log:
        started, seen = time.perf_counter(), 0
        show = warnings.showwarning

        def warned(message: Warning | str, category: type[Warning], *rest: object) -> None:
            nonlocal seen
            seen += 1
            _add(log, logging.WARNING, "warning", error=category.__name__)
            show(message, category, *rest)  # type: ignore[arg-type]

        def end() -> dict[str, object]:
            return {"seconds": round(time.perf_counter() - started, 3), "warnings": seen}

        facts = {"verb": _name(verb), "version": version("calid"), "options": _options(verb)}
        _add(log, logging.INFO, "start", **facts)
        warnings.showwarning = warned  # type: ignore[assignment]
        try:
            yield
        except BaseException as error:
            # The run has failed already: a full disk must not hide why.
            with suppress(OutputError):
                _add(log, logging.ERROR, "error", **_failure(error), **end())
            raise
        finally:
            warnings.showwarning = show
        _add(log, logging.INFO, "finish", exit_code=0, **end())


def log_refusal(arguments: Sequence[str], exit_code: int) -> None:
    """Log a command line that could not be understood, if it names a log."""
    name = ""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if option.replace("_", "-") == "--log-json":
            name = value if equals else following
    if name:
        with suppress(OutputError), _writing(Path(name), []) as log:
            _add(log, logging.ERROR, "error", error=UsageError.__name__, exit_code=exit_code)


@contextmanager
def _writing(path: Path, others: Sequence[Path]) -> Iterator[logging.Logger]:
    """The package's logger, writing to a file for as long as the block lasts."""
    from calid.io.atomic import check_output

    check_output(path, others, ENDINGS)
    log = logging.getLogger("calid")
    handler = _File(path, encoding="utf-8", delay=True)
    handler.setFormatter(_JsonLine())
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        with suppress(OSError):
            handler.close()


class _File(logging.FileHandler):
    """A log that says when it cannot be written, by the package's own error."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.stream is None:
                self.stream = self._open()
            self.stream.write(self.format(record) + "\n")
            self.stream.flush()
        except OSError as error:
            raise OutputError(
                self.baseFilename,
                f"The log could not be written: {error.strerror or error}.",
                "Free some space or choose another folder.",
            ) from error


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.msg,
        }
        return json.dumps(line | {name: fields[name] for name in FIELDS if name in fields})


def _add(log: logging.Logger, level: int, event: str, **fields: object) -> None:
    log.log(level, event, extra={"fields": fields})


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
    return {
        "error": type(error).__name__,
        "exit_code": code,
        "where": places[-1] if places else None,
    }


def _name(verb: object) -> str:
    """``TrainAutoencoder`` is ``train autoencoder``."""
    inner = getattr(verb, "stage", verb)
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(inner).__name__).lower()


def _values(verb: object) -> dict[str, object]:
    inner = getattr(verb, "stage", verb)
    if not dataclasses.is_dataclass(inner):
        return {}
    return {field.name: getattr(inner, field.name) for field in dataclasses.fields(inner)}


def _options(verb: object) -> dict[str, float]:
    return {n: v for n, v in _values(verb).items() if isinstance(v, bool | int | float)}


def _paths(verb: object) -> list[Path]:
    """All paths of a verb: the log may be none of them."""
    found: list[Path] = []
    for value in _values(verb).values():
        found += [
            v for v in (value if isinstance(value, tuple) else [value]) if isinstance(v, Path)
        ]
    sidecar = getattr(verb, "sidecar", None)
    return [*found, *([sidecar] if isinstance(sidecar, Path) else [])]
