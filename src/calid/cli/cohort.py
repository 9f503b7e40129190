"""`calid cohort`: many stacks, several at a time."""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from calid.cli.console import as_options, frames_bar, say
from calid.errors import CalidWarning, CohortError, OutputError, UsageError
from calid.inference.options import Generation, Reading

if TYPE_CHECKING:
    from calid.cohort.subject import Engine, Subject
    from calid.cohort.summary import Summary

__all__ = ["Cohort"]

SHOWN = 5
"""Failed subjects that are named on the terminal; the table has all."""


@dataclass(frozen=True, kw_only=True)
class Cohort(Generation):
    """Reconstruct all stacks of a cohort.

    A subject that fails does not stop the others: OUT/summary.csv says what became of each.
    Outputs are BIDS derivatives. See docs/how-to/cohort.md for clusters.
    """

    input: Annotated[Path, tyro.conf.Positional]
    """BIDS tree, folder of NIfTI files (or of DICOM folders),
    or list of paths (txt; csv or tsv with columns path and,
    optionally, id)."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the derivatives; made if missing."""
    match: str = "*"
    """Only images whose path below INPUT fits this pattern, such as *_cine.nii.gz."""
    resume: bool = False
    """Keep outputs of an earlier run that are complete,
    unaltered, and made from the same input by the same
    release with the same options; do the rest."""
    shard: str = "1/1"
    """Only part I of N (I/N, from 1), for array jobs."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or actors of a Ray cluster."""
    workers: int = 0
    """Stacks at a time, about 1 GB each. 0: one for every CPU
    here (one with a GPU), or as many as the Ray cluster has
    room for."""
    threads: int = 0
    """CPU threads of a worker. 0: this machine's CPUs shared out, or what a Ray worker reserves."""
    retries: int = 1
    """How often a subject is begun again after its worker died."""
    address: str | None = None
    """Ray cluster to use. Without: the one of this machine or of RAY_ADDRESS; local starts one."""
    num_cpus: float = 1.0
    """CPUs that a Ray worker reserves."""
    num_gpus: float = 0.0
    """GPUs that a Ray worker reserves; 0.25 puts four workers on one."""
    reading: Reading = field(default_factory=Reading)

    def run(self) -> None:
        """Find subjects, reconstruct those that are not done yet, write the table."""
        from calid.cohort.summary import Summary, prepare_dataset
        from calid.cohort.walk import left_out, walk

        number, count = self._check()
        engine, threads = self._engine()
        # Parts are disjoint and together all, as long as each sees the same subjects.
        subjects = walk(self.input, self.match, self.out)[number - 1 :: count]
        if note := left_out(self.input, self.out):
            warnings.warn(f"{self.input}: {note}", CalidWarning, stacklevel=2)
        prepare_dataset(self.out)
        name = "summary.csv" if count == 1 else f"summary_shard-{number}-of-{count}.csv"
        summary = Summary(self.out / name, subjects)
        started = time.perf_counter()
        try:
            self._reconstruct(subjects, engine, threads, summary)
        finally:
            summary.write()
        seconds = time.perf_counter() - started
        done, kept = len(summary.of_status("done")), len(summary.of_status("kept"))
        troubled = summary.of_status("failed", "lost")
        pace = f", {3600 * done / seconds:.0f} an hour" if done else ""
        say(
            f"{len(subjects)} subjects: {done} done, {kept} kept, {len(troubled)} failed; "
            f"{_clock(seconds)}{pace}."
        )
        for outcome in troubled[:SHOWN]:
            say(f"  {outcome.subject}: {outcome.rule}")
        say(str(summary.path))
        if troubled:
            raise CohortError(
                self.input,
                f"{len(troubled)} of {len(subjects)} subjects have no output.",
                f"See {summary.path}, then run the same command with --resume.",
            )

    def _check(self) -> tuple[int, int]:
        """Check the options before any work is done; the number of the part, and of all parts."""
        found = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count:
            raise UsageError("--shard", f"{self.shard!r} is no part.", "Use 1/4, 2/4, 3/4 and 4/4.")
        self.answer()
        for name in ("workers", "threads", "retries", "num_cpus", "num_gpus"):
            if not getattr(self, name) >= 0:
                raise UsageError(
                    f"`{name}`", f"{getattr(self, name)} is too small.", "Use 0 or more."
                )
        if self.engine == "local" and self.address is not None:
            raise UsageError("--address", "It is that of a Ray cluster.", "Add --engine ray.")
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(self.out, "This is not a folder.", "Give a folder.")
        if self.out.resolve() == self.input.resolve():
            raise OutputError(
                self.out, "The output is also the input.", "Choose another folder: inputs are kept."
            )
        return number, count

    def _engine(self) -> tuple[Engine, int]:
        """Where to run, and the CPU threads of a worker there."""
        if self.engine == "ray":
            from calid.cohort.ray_engine import RayEngine

            shares = self.num_cpus, self.num_gpus
            ray = RayEngine(self.address or "auto", self.workers, *shares, self.retries)
            return ray, self.threads or max(1, int(self.num_cpus))
        from calid.cohort.local import LocalEngine
        from calid.inference.machine import available_cpus
        from calid.runtime import choose_device

        cpus = available_cpus()
        workers = self.workers or (1 if choose_device(self.device).type == "cuda" else cpus)
        threads = self.threads or max(1, cpus // workers)
        return LocalEngine(workers, threads, self.retries), threads

    def _reconstruct(
        self, subjects: Sequence[Subject], engine: Engine, threads: int, summary: Summary
    ) -> None:
        """Do every subject, or with `resume` those of which nothing complete is there."""
        from calid.cohort.job import Reconstruction, kept_outputs

        if self.resume:
            waiting = []
            with frames_bar(len(subjects), "checking earlier outputs") as on_subject:
                earlier = kept_outputs(self, self.reading, subjects, self.out)
                for done, (subject, kept) in enumerate(zip(subjects, earlier, strict=True), 1):
                    if kept is None:
                        waiting.append(subject)
                    else:
                        summary.add(kept)
                    on_subject(done)
            subjects = waiting
        options = {name: getattr(self, name) for name in Generation.__dataclass_fields__}
        setup = Reconstruction(Generation(**options), self.reading, self.out.resolve(), threads)
        with _progress(len(subjects)) as on_outcome:
            for done, outcome in enumerate(engine.run(setup, subjects) if subjects else (), 1):
                texts = (outcome.rule, outcome.remedy, outcome.notes)
                rule, remedy, notes = map(as_options, texts)
                summary.add(replace(outcome, rule=rule, remedy=remedy, notes=notes))
                on_outcome(done, len(summary.of_status("failed", "lost")))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that takes the numbers done and failed.

    On a terminal a bar; in the log of a batch job a line a minute.
    """
    from rich.progress import TextColumn

    from calid.progress import progress_bar

    started = said = time.monotonic()

    def line(done: int, failed: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= 60:
            left = (now - started) / done * (total - done)
            print(f"{done}/{total}, {failed} failed, {_clock(left)} left", file=sys.stderr)
            said = now

    if not sys.stderr.isatty():
        yield line
        return
    with progress_bar(TextColumn("{task.fields[failed]} failed"), disable=total == 0) as bar:
        task = bar.add_task("subjects", total=total, failed=0)
        yield lambda done, failed: bar.update(task, completed=done, failed=failed)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
