"""What lies beside the outputs: a table of the subjects, and the description BIDS asks for."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path

from calid.cohort.subject import Outcome, Subject
from calid.errors import OutputError
from calid.io.atomic import make_folder
from calid.io.sidecar import write_json, write_text

__all__ = ["DESCRIPTION", "INTERVAL", "Summary", "prepare_dataset"]

INTERVAL = 10.0
"""Seconds between two writings of the table while subjects come in."""

DESCRIPTION = "dataset_description.json"


class Summary:
    """Table (CSV) of outcomes so far, with their sources, in the order of the subjects."""

    def __init__(self, path: Path, subjects: Iterable[Subject]) -> None:
        self.path = path
        self._sources = {subject.name: subject.source for subject in subjects}
        self._outcomes: dict[str, Outcome] = {}
        self._written = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Take in an outcome; the file follows within `INTERVAL`."""
        self._outcomes[outcome.subject] = outcome
        if time.monotonic() - self._written >= INTERVAL:
            self.write()

    def of_status(self, *statuses: str) -> list[Outcome]:
        """Outcomes with one of the statuses."""
        ordered = (self._outcomes[name] for name in self._sources if name in self._outcomes)
        return [outcome for outcome in ordered if not statuses or outcome.status in statuses]

    def write(self) -> None:
        """Replace the file; an `OutputError` if that is refused."""
        buffer = io.StringIO()
        names = [field.name for field in fields(Outcome)]
        writer = csv.DictWriter(buffer, [*names, "source"], lineterminator="\n")
        writer.writeheader()
        for outcome in self.of_status():
            row = asdict(outcome) | {"seconds": f"{outcome.seconds:.3f}"}
            writer.writerow(row | {"source": self._sources[outcome.subject]})
        write_text(buffer.getvalue(), self.path)
        self._written = time.monotonic()


def prepare_dataset(out: Path) -> None:
    """Make the folder of outputs, a BIDS derivative, with its description.

    An `OutputError` if it cannot be made or written, or is another program's dataset.
    """
    make_folder(out)
    path = out / DESCRIPTION
    if path.exists() and not _is_ours(path):
        raise OutputError(
            out,
            "The folder is a dataset that calid did not make.",
            "Give a folder of its own, derivatives/calid for instance.",
        )
    made_by = {
        "Name": "calid",
        "Version": version("calid"),
        "Description": "Slices between the acquired ones are generated estimates; "
        "the JSON file beside an image says which. Research use only.",
    }
    description = {
        "Name": "CaLID: dense reconstructions of short-axis stacks",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
    }
    write_json(description, path)
    write_text("summary*.csv\n", out / ".bidsignore")


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return any(made.get("Name") == "calid" for made in content["GeneratedBy"])
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return False
