"""`calid evaluate`: how good is it, on your own stacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from calid.errors import DataError, UsageError

__all__ = ["Evaluate"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Hide every second slice of real stacks, reconstruct it, and compare with the truth."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder of NIfTI stacks, searched recursively. Labels are not needed."""
    out: Path
    """Folder for summary.json, per_subject.csv, table.md and examples.png; made if missing."""
    protocol: Literal["hidden-slices"] = "hidden-slices"
    """Which test."""
    methods: str = "all"
    """all, or names separated by commas."""
    max_subjects: int | None = None
    """Stop after this many subjects."""
    seed: int = 0
    """Of the samplers."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Evaluate and print the table."""
        from calid.cli.console import frames_bar, say
        from calid.cli.info import describe_weights
        from calid.data.bank import find_stacks, subject_of
        from calid.evaluation.methods import NAMES, build_methods
        from calid.evaluation.run import evaluate_hidden_slices
        from calid.evaluation.tables import markdown, summarise, write_results
        from calid.inference.model import load_model
        from calid.report.examples import example_rows
        from calid.report.figure import save_figure
        from calid.weights import FOLDER

        if not self.data.is_dir():
            raise DataError(self.data, "There is no such folder.", "Give a folder of stacks.")
        if self.max_subjects is not None and self.max_subjects < 1:
            raise UsageError("--max-subjects", "Nothing would be left.", "Use 1 or more.")
        names = list(NAMES) if self.methods == "all" else self.methods.split(",")
        methods = build_methods(names, self.seed, self.device)
        learned = set(names) - {"nearest", "linear"}
        ceiling = load_model("default", self.device) if learned else None
        files = find_stacks(self.data)
        subjects = sorted({subject_of(f) for f in files})[: self.max_subjects]
        files = [f for f in files if subject_of(f) in subjects]
        self.out.mkdir(parents=True, exist_ok=True)

        with frames_bar(len(files), "evaluating") as on_file:
            found = evaluate_hidden_slices(files, methods, ceiling, on_file)
        weights = {p.stem: describe_weights(p)["sha256"] for p in FOLDER.glob("*.safetensors")}
        facts = {"seed": self.seed, "n_slices": found.slices, "weights_sha256": weights}
        summary = summarise(found.results, self.protocol, _short(self.data), facts)
        write_results(found.results, summary, self.out)
        save_figure(example_rows(found.truths, found.answers), self.out / "examples.png")
        say(markdown(summary))
        say(str(self.out / "table.md"))


def _short(folder: Path) -> str:
    """The last two parts of a path: enough to know the data, nothing about the machine."""
    return "/".join(folder.resolve().parts[-2:])
