"""`calid`: one dataclass a verb, most of them in a file of their own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional, Union

try:  # Ctrl-C while the program starts is no fault of it
    import tyro

    import calid
    from calid.cli.cohort import Cohort
    from calid.cli.console import safe_streams, say, show_error, warnings_shown
    from calid.cli.demo import Demo
    from calid.cli.evaluate import Evaluate
    from calid.cli.info import Info
    from calid.cli.inspect import Inspect
    from calid.cli.log import log_refusal, logged
    from calid.cli.measure import Measure
    from calid.cli.reconstruct import Reconstruct
    from calid.cli.segment import Segment
    from calid.cli.train import (
        FORMER,
        TrainAutoencoder,
        TrainDefault,
        TrainDiffusionAutoencoder,
        TrainPaper,
        TrainRegression,
        TrainSegmentation,
    )
    from calid.cli.view import View
    from calid.errors import CalidError, UsageError
except KeyboardInterrupt:
    sys.exit(130)

__all__ = ["main"]


@dataclass(frozen=True)
class Train:
    """Train the networks on your own stacks; only segmentation needs labels."""

    stage: (
        Annotated[TrainAutoencoder, tyro.conf.subcommand("autoencoder")]
        | Annotated[TrainDefault, tyro.conf.subcommand("default")]
        | Annotated[TrainPaper, tyro.conf.subcommand("paper")]
        | Annotated[TrainRegression, tyro.conf.subcommand("regression")]
        | Annotated[TrainDiffusionAutoencoder, tyro.conf.subcommand("diffusion-autoencoder")]
        | Annotated[TrainSegmentation, tyro.conf.subcommand("segmentation")]
    )

    def run(self) -> None:
        """Train the chosen stage."""
        self.stage.run()


# A verb is called as its class is. tyro loads typeguard, a fifth of the start, for unions with |.
Verb = Union[  # noqa: UP007
    Reconstruct, Cohort, Segment, View, Measure, Evaluate, Train, Inspect, Info, Demo
]


@dataclass(frozen=True)
class Command:
    """One verb, and what all verbs share."""

    verb: Verb
    log_json: Annotated[Optional[Path], tyro.conf.arg(metavar="FILE")] = None  # noqa: UP045
    """Log to append to, one JSON object a line; it holds no text, no path and no name."""


REMOVED = {
    "--temperature": "Use --dial: 0 is the mean, 1 is about as crisp as a real slice.",
    "--runtime": "Leave it out: torch computes the networks.",
}
"""Options of calid 0.1, and what to do instead."""


def _parse(arguments: Sequence[str]) -> Command:
    verb, stage = [*arguments, "", ""][:2]
    if verb == "train" and stage in FORMER:
        log_refusal(arguments, UsageError.exit_code)
        raise UsageError(
            f"calid train {stage}", "There is no such training any more.", f"Use {FORMER[stage]}."
        )
    try:
        return tyro.cli(
            Command,
            prog="calid",
            description=(
                "Cardiac Latent Interpolation Diffusion: a dense heart from a few short-axis "
                "slices. Research use only; not a medical device.\n\n"
                "Begin with calid demo, or with a stack of your own:\n"
                "calid reconstruct stack.nii.gz dense.nii.gz --figure dense.png\n\n"
                "calid --version says which release this is."
            ),
            args=arguments,
            config=(
                tyro.conf.OmitSubcommandPrefixes,
                tyro.conf.OmitArgPrefixes,
                tyro.conf.PositionalMetavarFromFieldName,
                tyro.conf.DisallowNone,
                tyro.conf.CascadeSubcommandArgs,  # options of all verbs stand behind the verb
            ),
        )
    except SystemExit as stop:
        if isinstance(stop.code, int) and stop.code:
            log_refusal(arguments, stop.code)
        raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; exit with its code (see `calid.errors`), 130 when interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    with safe_streams():
        try:
            try:
                _run(given)
            finally:
                sys.stdout.flush()
        except CalidError as error:
            show_error(error)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            sys.exit(130)


def _run(given: Sequence[str]) -> None:
    if list(given) == ["--version"]:
        say(f"calid {calid.__version__}")
        return
    for option in given:
        if (name := option.split("=")[0]) in REMOVED:
            raise UsageError(name, "There is no such option since calid 0.2.", REMOVED[name])
    command = _parse(given)
    with warnings_shown(), logged(command.verb, command.log_json):
        command.verb.run()
