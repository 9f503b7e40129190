"""Kill `calid` at random moments and look at what is left.

    python benchmarks/kill.py --times 50

Every time a reconstruction, an evaluation or a training is killed (SIGKILL), half of the times
at a random moment, half of the times just before it opens, renames or removes some file. After
every kill all files under their final names must be whole, older ones as they were; then the
run is started again and must end as one that was never killed: the same bytes, the same loss
curve. Needs a system that can fork. The last line is ``50 of 50``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, rmtree

os.environ["OMP_NUM_THREADS"] = "1"

# Imported before forking, so that children start at once and kills fall into their work.
import matplotlib.backends.backend_agg  # noqa: F401
import nibabel
import numpy as np
import safetensors
import torch

import calid.report.figures
import calid.training.setup  # noqa: F401
from calid.cli.main import main as calid_main

EVENTS = ("os.rename", "os.remove", "os.mkdir")
"""Audit events before which a run may be killed, besides opening a file for writing."""

Content = dict[str, object]
"""Relative names of files to that part of their content that is the same in every run."""


@dataclass(frozen=True)
class Victim:
    """A command that is killed.

    Parameters
    ----------
    arguments
        Of `calid`, given the folder for its outputs.
    check
        Complains about a folder that a killed run has left, given the folder, its content
        before, and its content after a run that is not killed.
    before
        Arguments that are added for an earlier run in the same folder; none for no such run.
    again
        Arguments that are added when it is started again.
    """

    arguments: Callable[[Path], list[str]]
    check: Callable[[Path, Content, Content], None]
    before: tuple[str, ...] = ()
    again: tuple[str, ...] = ()


def main() -> None:
    """Kill, check, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=("reconstruct", "evaluate", "train"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance, good = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as scratch:
        data = make_data(Path(scratch) / "data")
        cases = {
            name: Case(victim, name, Path(scratch))
            for name, victim in victims(data).items()
            if name in (options.only or [name])
        }
        for number in range(options.times):
            name = list(cases)[number % len(cases)]
            moment, complaint = cases[name].kill(chance)
            good += complaint is None
            print(f"{name}, killed {moment}: {complaint or 'whole, and the same in the end'}")
    print(f"{good} of {options.times}")
    sys.exit(good != options.times)


class Case:
    """A victim with what it leaves when nobody kills it."""

    def __init__(self, victim: Victim, name: str, scratch: Path) -> None:
        self.victim, self.scratch = victim, scratch / name
        self.before = self.scratch / "before"
        self.before.mkdir(parents=True)
        if victim.before:
            fork(self._arguments(self.before, *victim.before))
        whole = self._fresh("whole")
        started = time.perf_counter()
        status, events = fork(self._arguments(whole))
        self.seconds, self.events = time.perf_counter() - started, events
        if status:
            raise SystemExit(f"{name} fails without being killed: status {status}")
        self.old, self.expected = content(self.before), content(whole)

    def kill(self, chance: random.Random) -> tuple[str, str | None]:
        """Kill one run and start it again; the moment, and what is wrong with the outcome."""
        status = 0
        while status != signal.SIGKILL:  # a run may end before its moment comes
            folder = self._fresh("killed")
            if chance.random() < 0.5:
                event = chance.randrange(self.events)
                moment = f"before file event {event} of {self.events}"
                status, _ = fork(self._arguments(folder), event=event)
            else:
                seconds = chance.uniform(0, self.seconds)
                moment = f"after {seconds:.3f} s of {self.seconds:.3f} s"
                status, _ = fork(self._arguments(folder), seconds=seconds)
        try:
            found = content(folder)
            self.victim.check(folder, self.old, self.expected)
            answers = {n: (folder / n).stat().st_mtime_ns for n in found if n.endswith(".npz")}
            status, _ = fork(self._arguments(folder, *self.victim.again))
            expect(status == 0, f"started again it ends with status {status}")
            for name, when in answers.items():
                expect((folder / name).stat().st_mtime_ns == when, f"{name} was made again")
            compare(content(folder), self.expected)
        except Exception as error:
            return moment, f"{type(error).__name__}: {error}"
        return moment, None

    def _arguments(self, folder: Path, *more: str) -> list[str]:
        return [*self.victim.arguments(folder), "--device", "cpu", *more]

    def _fresh(self, name: str) -> Path:
        folder = self.scratch / name
        rmtree(folder, ignore_errors=True)
        copytree(self.before, folder)
        return folder


def fork(
    arguments: list[str], event: int | None = None, seconds: float | None = None
) -> tuple[int, int]:
    """Run `calid` in a child; its wait status, and the number of its file events."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        run_child(arguments, event, writer)
    os.close(writer)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader) as pipe:
        events = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, int(events or 0)


def run_child(arguments: list[str], event: int | None, writer: int) -> None:
    """Run in the child and never return; tell the number of file events at the end."""
    seen = 0

    def watch(name: str, facts: tuple[object, ...]) -> None:
        nonlocal seen
        writes = name == "open" and isinstance(facts[2], int) and facts[2] & os.O_ACCMODE
        if writes or name in EVENTS:
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    code = 1
    try:
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        sys.addaudithook(watch)
        calid_main(arguments)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os.write(writer, str(seen).encode())
        os._exit(code)


def content(folder: Path) -> Content:
    """Content of every file under a final name."""
    names = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".calid-")]
    return {str(path.relative_to(folder)): _stable(path) for path in sorted(names)}


def _stable(path: Path) -> object:
    if path.suffix in (".json", ".jsonl"):
        records = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        return [{k: v for k, v in json.loads(r).items() if k != "seconds"} for r in records]
    if path.suffix == ".safetensors":  # its metadata come in any order
        with safetensors.safe_open(path, "np") as store:
            tensors = {name: store.get_tensor(name).tobytes() for name in store.keys()}  # noqa: SIM118
            return store.metadata(), tensors
    return path.read_bytes()


def expect(true: bool, complaint: str) -> None:
    """Complain unless it is true."""
    if not true:
        raise AssertionError(complaint)


def compare(found: Content, expected: Content) -> None:
    """Complain about files that are too many, missing or different."""
    expect(found.keys() == expected.keys(), f"files differ: {found.keys() ^ expected.keys()}")
    other = [name for name, value in found.items() if value != expected[name]]
    expect(not other, f"not as in a run that was never killed: {other}")


def check_outputs(folder: Path, old: Content, expected: Content) -> None:
    """Complain unless every file is old or new, and a new record has new files."""
    found = content(folder)
    expect(found.keys() == expected.keys(), f"files differ: {found.keys() ^ expected.keys()}")
    for name, value in found.items():
        expect(value in (old[name], expected[name]), f"{name} is neither old nor new")
    for record in ("dense.json", "summary.json"):
        if record in found and found[record] != old[record]:
            compare(found, expected)


def check_evaluation(folder: Path, old: Content, expected: Content) -> None:
    """Complain unless kept answers can be read and the report is whole."""
    for path in folder.rglob("*.npz"):
        if not path.name.startswith(".calid-"):
            with np.load(path) as answer:
                expect(bool(np.isfinite(answer["answer"]).all()), f"{path.name} is damaged")
    report = {n for n in expected if not n.startswith("predictions")}
    found = content(folder)
    expect(report <= found.keys(), "the old report is not whole")
    for name in report:
        expect(found[name] in (old[name], expected[name]), f"{name} is neither old nor new")
    if found["summary.json"] != old["summary.json"]:
        compare(found, expected)


def check_training(folder: Path, old: Content, expected: Content) -> None:
    """Complain unless checkpoint and weights can be read whole, as `content` does."""
    found = content(folder)
    expect(found.keys() <= expected.keys(), f"too many files: {found.keys() - expected.keys()}")


def make_data(folder: Path) -> Path:
    """Write stacks of noise, three slices of 64 x 64."""
    generator = np.random.default_rng(0)
    for name in ("train/a", "train/b", "held/c"):
        path = folder / f"{name}_ED.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = generator.integers(0, 400, (64, 64, 3)).astype(np.int16)
        image = nibabel.Nifti1Image(voxels, np.diag([1.5, 1.5, 10.0, 1.0]))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, path)
    return folder


def victims(data: Path) -> dict[str, Victim]:
    """The commands that are killed."""

    def reconstruct(out: Path) -> list[str]:
        stack, volume = str(data / "train" / "a_ED.nii.gz"), str(out / "dense.nii.gz")
        files = ["--uncertainty", str(out / "std.nii.gz"), "--figure", str(out / "cut.png")]
        return ["reconstruct", stack, volume, "--factor=2", "--samples=2", "--steps=1", *files]

    def evaluate(out: Path) -> list[str]:
        return ["evaluate", str(data), "--out", str(out), "--methods", "linear,calid"]

    def train(out: Path) -> list[str]:
        folders = ["--data", str(data / "train"), "--validation", str(data / "held")]
        length = ["--steps=5", "--save-every=2", "--validate-every=2", "--size=32", "--batch=2"]
        return ["train", "autoencoder", *folders, "--out", str(out), *length]

    return {
        "reconstruct": Victim(reconstruct, check_outputs, before=("--seed=9",)),
        "evaluate": Victim(evaluate, check_evaluation, before=("--seed=9", "--max-subjects=1")),
        "train": Victim(train, check_training, again=("--resume",)),
    }


if __name__ == "__main__":
    main()
