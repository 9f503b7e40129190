"""The folder of outputs as a BIDS derivative."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from calid.errors import OutputError
from calid.io.atomic import atomic, make_folder
from calid.io.sidecar import write_json

__all__ = ["DESCRIPTION", "prepare_dataset"]

DESCRIPTION = "dataset_description.json"


def prepare_dataset(out: Path) -> None:
    """Make the folder of outputs, with the description that BIDS asks for.

    Raises
    ------
    OutputError
        If the folder cannot be made or written, or is another program's dataset.
    """
    make_folder(out)
    path = out / DESCRIPTION
    if path.exists() and not _is_ours(path):
        raise OutputError(
            out,
            "The folder is a dataset that calid did not make.",
            "Give a folder of its own, derivatives/calid for instance.",
        )
    write_json(
        {
            "Name": "CaLID: dense reconstructions of short-axis stacks",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [
                {
                    "Name": "calid",
                    "Version": version("calid"),
                    "Description": "Slices between the acquired ones are generated estimates; "
                    "the JSON file beside an image says which. Research use only.",
                }
            ],
        },
        path,
    )
    with atomic(out / ".bidsignore") as file:
        file.write(b"summary*.csv\n")


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return any(made.get("Name") == "calid" for made in content["GeneratedBy"])
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return False
