"""How far a film's last frame is from its first, in films of a whole heartbeat and of a part.

    python benchmarks/whole_beat.py FILMS [FILMS ...]

The films below FILMS cover a heartbeat. Each is measured whole and cut to its first three quarters
and its first half, which are films of prospectively gated exams. A film whose step from the last
frame to the first is larger than `calid.models.motion.CLOSING` times its largest other step is
taken to cover a part of the beat. The table goes to ``docs/results/whole-beat.md``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from calid import read_stack
from calid.data.bank import find_stacks
from calid.evaluation.tables import markdown_table
from calid.models.motion import CLOSING, closing_step

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "whole-beat.md"
SHARES = (1.0, 0.75, 0.5)
"""Of the heartbeat."""
FEWEST = 8
"""Frames of a film that is measured, so that its half has motion, too."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("films", type=Path, nargs="+")
    films = [
        film
        for folder in parser.parse_args().films
        for path in find_stacks(folder)
        if len(film := read_stack(path).data) >= FEWEST
    ]
    head = ["share of the heartbeat", "films", "smallest", "median", "largest", "taken for a part"]
    rows = []
    for share in SHARES:
        found = np.array([closing_step(film[: round(share * len(film))]) for film in films])
        figures = (f"{x:.2f}" for x in np.percentile(found, (0, 50, 100)))
        rows.append([f"{share:.0%}", str(len(films)), *figures, f"{(found > CLOSING).mean():.0%}"])
    lines = [
        "# Whole heartbeats",
        "",
        "Written by `python benchmarks/whole_beat.py`: step from the last frame of a film to its",
        f"first, in units of its largest other step. More than {CLOSING} is taken for a part of a "
        "heartbeat.",
        "",
        *markdown_table(head, rows),
    ]
    OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
