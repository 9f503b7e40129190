"""`calid` as its users call it."""

from __future__ import annotations

from calid.cli.main import main


def run(*arguments: object) -> int:
    """Run a command in this process; its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
