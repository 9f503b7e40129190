"""Write every figure that README, model card and docs/results quote.

    python benchmarks/write_results.py DATA [--publish]

DATA is a folder with ``acdc/val`` and ``acdc/test``. The tables are made by `calid evaluate` on
the weights in the package and those of the learned baselines in ``benchmarks/baselines``; the
text between a pair of markers is replaced, nothing else is touched. ``--publish`` also evaluates
``acdc/test``, which is done once per released model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from calid.cli.info import describe_weights
from calid.data.labelled import load_labelled
from calid.evaluation.overlap import dice
from calid.geometry.grid import PIXEL_SPACING
from calid.labels import CLASSES
from calid.segmentation.segment import keep_largest, load_segmenter

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
BASELINES = ROOT / "benchmarks" / "baselines"
PROTOCOLS = ("hidden-slices", "downstream", "uncertainty")

NOTICE = (
    "Derived from ACDC (Bernard et al., IEEE TMI 37(11), 2018); figures and pictures carry its "
    "licence, CC BY-NC-SA 4.0."
)
"""Stands beside every table and picture of ACDC's people."""


def main() -> None:
    """Evaluate, time, and put the figures where they belong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--publish", action="store_true", help="evaluate acdc/test as well")
    options = parser.parse_args()
    splits = ("val", "test") if options.publish else ("val",)
    for split in splits:
        evaluate(options.data / "acdc" / split)
    tradeoff = ("--baselines", str(BASELINES), str(options.data / "acdc" / "val"))
    script("tradeoff.py", *tradeoff, str(RESULTS / "tradeoff"))
    mark(RESULTS / "tradeoff" / "table.md")
    films(options.data / "acdc_cine" / "val")
    dense_truth(options.data / "isotropic")
    quote(splits[-1])
    card = ROOT / "src/calid/weights/MODEL_CARD.md"
    put(card, "weights", weights(card.parent))
    put(BASELINES / "README.md", "weights", weights(BASELINES))
    put(card, "segmentation", noted(segmentation([options.data / "acdc" / s for s in splits])))
    put(ROOT / "README.md", "timing", timing(options.data))
    put(ROOT / "README.md", "cost", cost())
    put(ROOT / "README.md", "demo", demo())


def evaluate(data: Path) -> None:
    """All protocols on one folder; what methods answered is shared and kept under runs/."""
    extra = ("--baselines", str(BASELINES), "--predictions", str(ROOT / "runs" / "predictions"))
    for protocol in PROTOCOLS:
        out = RESULTS / f"{protocol}-{data.parent.name}-{data.name}"
        calid("evaluate", str(data), "--out", str(out), "--protocol", protocol, *extra)
        mark(out / "table.md")
    # As figures were published before: to compare with those.
    coarse = RESULTS / f"{PROTOCOLS[0]}-{data.parent.name}-{data.name}-1.5mm"
    calid("evaluate", str(data), "--out", str(coarse), "--grid", "1.5mm", *extra)
    mark(coarse / "table.md")
    leave_out(RESULTS / f"downstream-{data.parent.name}-{data.name}")  # the same answers again


def films(data: Path) -> None:
    """Hidden slices of whole films, without the slowest methods."""
    out = RESULTS / f"film-{data.parent.name}-{data.name}"
    methods = "linear,registration,calid,calid-2d,calid-mean"
    kept = ("--predictions", str(ROOT / "runs" / "predictions"))
    calid(
        "evaluate", str(data), "--out", str(out), "--protocol", "film", "--methods", methods, *kept
    )
    mark(out / "table.md")


def dense_truth(scanned: Path) -> None:
    """Hearts that are known everywhere, synthetic ones and a real one; what a whole heart costs."""
    methods = "nearest,linear,cubic,registration,calid,calid-mean"
    cost = ("--protocol", "cost", "--out", str(RESULTS / "cost-heart"))
    calid("evaluate", "phantoms", *cost)
    dense: tuple[str, ...] = ("--protocol", "dense", "--max-subjects", "10", "--methods", methods)
    dense += ("--predictions", str(ROOT / "runs" / "predictions"))
    calid("evaluate", "phantoms", *dense, "--out", str(RESULTS / "dense-phantoms"))
    real = RESULTS / "dense-isotropic"
    calid("evaluate", str(scanned), *dense, "--out", str(real))
    leave_out(real)  # the scan is for measuring, not for showing
    script("phantom_films.py", str(RESULTS / "phantom-films"))


def mark(table: Path) -> None:
    """Put the notice of the data below a table's first line, which names them."""
    first, rest = table.read_text().split("\n", 1)
    table.write_text(f"{first}\n\n{NOTICE}\n{rest}")


def noted(text: str) -> str:
    """A table with the notice of the data above it."""
    return f"{NOTICE}\n\n{text}"


def leave_out(folder: Path) -> None:
    """Remove the pictures of single slices."""
    for name in ("examples-*.png", "errors-*.png"):
        for picture in folder.glob(name):
            picture.unlink()


def segmentation(folders: list[Path]) -> str:
    """Dice of the segmentation network on whole real stacks, against manual labels."""
    segmenter = load_segmenter()
    lines = ["| stacks | " + " | ".join(CLASSES) + " | mean |", "|---" * (len(CLASSES) + 2) + "|"]
    for folder in folders:
        rows = []
        for stack in load_labelled(folder):
            found = segmenter.label_slices(stack.images, (PIXEL_SPACING, PIXEL_SPACING))
            found = keep_largest(found)
            rows.append([dice(found == c, stack.labels == c) for c in CLASSES.values()])
        means = np.nanmean(np.array(rows), axis=0)
        cells = " | ".join(f"{m:.3f}" for m in [*means, means.mean()])
        lines.append(f"| {folder.parent.name}/{folder.name} ({len(rows)}) | {cells} |")
    return "\n".join(lines) + "\n"


def quote(split: str) -> None:
    """Put the tables of one split into README and model card."""
    card = ROOT / "src/calid/weights/MODEL_CARD.md"
    hidden, downstream = (
        (RESULTS / f"{protocol}-acdc-{split}" / "table.md").read_text()
        for protocol in PROTOCOLS[:2]
    )
    put(ROOT / "README.md", "results", part(hidden, 0))
    put(ROOT / "README.md", "differences", noted(part(hidden, 1)))
    put(card, "results", part(hidden, 0))
    put(card, "downstream", part(downstream, 0))


def part(text: str, number: int) -> str:
    """One table of a results page: the main one, differences, then splits."""
    parts = re.split(r"\n\n(?=By )", text)
    return parts[number].rstrip() + "\n"


def calid(*arguments: str) -> str:
    """Run the command line and return what it prints."""
    command = [sys.executable, "-m", "calid", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def script(name: str, *arguments: str) -> None:
    """Run another benchmark."""
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    subprocess.run(command, check=True)


def weights(folder: Path) -> str:
    """Name, size, hash and validation figures of every file of weights in a folder."""
    lines = ["| file | parameters | MB | sha256 | validation |", "|---|---|---|---|---|"]
    for path in sorted(folder.glob("*.safetensors")):
        f = describe_weights(path)
        figures = ", ".join(f"{k} {v:.4g}" for k, v in f["figures"].items())
        lines.append(
            f"| {path.stem} | {f['parameters'] / 1e6:.2f} M | {f['bytes'] / 1e6:.1f} "
            f"| `{f['sha256'][:16]}` | {figures} |"
        )
    return "\n".join(lines) + "\n"


def timing(data: Path) -> str:
    """Wall time of one whole command on a real full field of view."""
    stack = data / "raw_full_fov" / "patient005_frame01.nii.gz"
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        calid("reconstruct", str(stack), f"{folder}/out.nii.gz", "--factor", "7")
        seconds = time.perf_counter() - started
        record = json.loads(Path(folder, "out.json").read_text())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    count, (_, slices, height, width) = (
        len(record["output"]["acquired_slices"]),
        record["output"]["shape"],
    )
    settings = record["settings"]
    drawn = f"{settings['samples']} samples of {settings['steps']} steps"
    how = drawn if settings["samples"] else "in one pass"
    return (
        f"{count} slices of {height} x {width} to {slices}, {how}, everything included: "
        f"{seconds:.0f} s, peak {peak:.1f} GiB, on {settings['device']} "
        f"({platform.machine()}, {settings['precision']}, "
        f"{len(os.sched_getaffinity(0))} cores).\n"
    )


def cost() -> str:
    """How much longer pixel-space diffusion takes than the default answer and one sample."""
    found = json.loads((RESULTS / "cost-heart" / "summary.json").read_text())
    rows = {row["method"]: row for row in found["results"]}
    pixels, ours, sample = (rows[n] for n in ("pixel diffusion", "calid", "calid-sample"))
    seconds, operations = (
        [f"{float(f'{pixels[key] / row[key]:.2g}'):,.0f}" for row in (ours, sample)]
        for key in ("seconds", "operations")
    )
    return (
        f"A pixel-space diffusion autoencoder of DMCVR's published size takes {seconds[0]} "
        f"times as long and {operations[0]} times the floating-point operations of the "
        f"default answer, and {seconds[1]} and {operations[1]} times those of one "
        "sample, which is drawn in the whole field ([table](docs/results/cost-heart/table.md); "
        "its time is extrapolated from a few evaluations).\n"
    )


def demo() -> str:
    """What `calid demo` prints, without the paths; its picture goes to docs/pictures."""
    with tempfile.TemporaryDirectory() as folder:
        lines = calid("demo", "--out", folder).splitlines()
        picture = Path(lines[-1])
        (ROOT / "docs/pictures/demo.png").write_bytes(picture.read_bytes())
    return "```\n" + "\n".join(line.rstrip() for line in lines[:-3]) + "\n```\n"


def put(path: Path, marker: str, text: str) -> None:
    """Replace what stands between ``<!-- marker -->`` and ``<!-- /marker -->``."""
    content = path.read_text()
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
    new, count = re.subn(pattern, lambda m: m[1] + text + m[2], content, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{path}: no place for {marker!r}")
    path.write_text(new)


if __name__ == "__main__":
    main()
