"""Write every figure that README, model card and docs/results quote.

    python benchmarks/write_results.py DATA [--publish] [--only PART ...]

DATA is a folder with ``acdc/val`` and ``acdc/test``. The tables are made by `calid evaluate` on
the weights in the package and those of the learned baselines in ``benchmarks/baselines``; the
text between a pair of markers is replaced, nothing else is touched. ``--publish`` also evaluates
``acdc/test``, which is done once per released model. Parts are ``slices``, ``coarse``,
``tradeoff``, ``along-z``, ``films``, ``whole-beat``, ``dense``, ``cost``, ``cost-film`` and
``papers``; without ``--only`` all are made.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calid import CLASSES, load_segmenter
from calid.data.bank import load_labelled
from calid.evaluation.metrics import dice
from calid.evaluation.tables import markdown_table
from calid.segmentation.segment import keep_largest
from calid.weights import describe_weights

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
BASELINES = ROOT / "benchmarks" / "baselines"
PROTOCOLS = ("hidden-slices", "downstream", "uncertainty")

COHORT, COHORT_CORES = 50_000, 1000
"""Films of a large study, and cores to share them."""

NOTICE = (
    "Derived from ACDC (Bernard et al., IEEE TMI 37(11), 2018); figures and pictures carry its "
    "licence, CC BY-NC-SA 4.0."
)
"""Stands beside every table and picture of ACDC's people."""


PARTS = (
    *("slices", "coarse", "tradeoff", "along-z", "films", "whole-beat", "dense"),
    *("cost", "cost-film", "papers"),
)


def main() -> None:
    """Evaluate, time, and put the figures where they belong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--publish", action="store_true", help="evaluate acdc/test as well")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    splits, only = ("val", "test") if options.publish else ("val",), options.only
    folders = [options.data / "acdc" / split for split in splits]
    for folder in folders:
        name = f"{folder.parent.name}-{folder.name}"
        if "slices" in only:
            for protocol in PROTOCOLS:
                pictures = protocol != "downstream"  # whose answers are those of hidden-slices
                given = ("--protocol", protocol, *SHARED)
                evaluate(folder, f"{protocol}-{name}", *given, pictures=pictures)
        if "coarse" in only:  # to compare with figures of earlier versions
            methods = "linear,registration,blend,paper,calid,calid-mean,calid-crisp,calid-sample"
            given = ("--grid", "1.5mm", "--methods", methods, *KEPT)
            evaluate(folder, f"{PROTOCOLS[0]}-{name}-1.5mm", *given, pictures=False)
    if "tradeoff" in only:
        out = str(RESULTS / "tradeoff")
        script("tradeoff.py", "--baselines", str(BASELINES), str(folders[0]), out)
        mark(RESULTS / "tradeoff" / "table.md")
    if "along-z" in only:
        out = str(RESULTS / "along-z")
        script("along_z.py", str(folders[0]), out, "--max-subjects", "4")  # a minute each
        mark(RESULTS / "along-z" / "table.md")
    if "films" in only:
        methods = "linear,registration,blend,calid,calid-2d,calid-mean,calid-crisp"
        given = ("--protocol", "film", "--methods", methods, *KEPT)
        evaluate(options.data / "acdc_cine" / "val", "film-acdc_cine-val", *given)
    if "whole-beat" in only:
        script("whole_beat.py", str(options.data / "acdc_cine"))
        mark(RESULTS / "whole-beat.md")
    if "dense" in only:
        dense_truth(options.data / "isotropic")
    if "cost" in only:
        evaluate(Path("phantoms"), "cost-heart", "--protocol", "cost", notice=False)
    if "cost-film" in only:
        evaluate(Path("phantoms"), "cost-film", "--protocol", "cost-film", notice=False)
        put(ROOT / "docs/how-to/cohort.md", "cohort", cohort_cost())
    if "papers" in only:
        papers(folders)


def papers(folders: list[Path]) -> None:
    """README, model card and the baselines' page."""
    card = ROOT / "src/calid/weights/MODEL_CARD.md"
    put(ROOT / "README.md", "results", noted(headline(folders[-1])))
    put(card, "results", noted(headline(folders[-1])))
    put(card, "weights", weights(card.parent))
    put(card, "segmentation", noted(segmentation(folders)))
    put(BASELINES / "README.md", "weights", weights(BASELINES))
    put(ROOT / "README.md", "demo", demo())


KEPT = ("--predictions", str(ROOT / "runs" / "predictions"))
SHARED = ("--baselines", str(BASELINES), *KEPT)


def evaluate(
    data: Path, name: str, *options: str, notice: bool = True, pictures: bool = True
) -> None:
    """Run `calid evaluate` into a folder of the results.

    ``notice`` puts the notice of ACDC below the table's first line; without ``pictures``, those
    of single slices are removed.
    """
    out = RESULTS / name
    calid("evaluate", str(data), "--out", str(out), *options)
    if notice:
        mark(out / "table.md")
    if not pictures:
        for picture in (*out.glob("examples-*.png"), *out.glob("errors-*.png")):
            picture.unlink()


ROWS = (
    *("linear", "registration", "blend", "diffusion-autoencoder", "paper"),
    *("calid", "calid-mean", "calid-crisp", "calid-sample", "real slice"),
)
COLUMNS = {
    "psnr": ("hidden-slices", "PSNR", 2),
    "ssim": ("hidden-slices", "SSIM", 3),
    "sharpness": ("hidden-slices", "sharpness", 2),
    "dice": ("downstream", "Dice", 3),
    "hd95": ("downstream", "HD95", 1),
    "lv_error_ml": ("downstream", "LV, ml", 1),
    "rv_error_ml": ("downstream", "RV, ml", 1),
}


def headline(data: Path) -> str:
    """Means over the subjects of a split, of the rows that most readers ask for."""
    name = f"{data.parent.name}-{data.name}"
    read = {
        protocol: json.loads((RESULTS / f"{protocol}-{name}" / "summary.json").read_text())
        for protocol in PROTOCOLS[:2]
    }
    found = {protocol: summary["methods"] for protocol, summary in read.items()}
    rows = []
    for row in ROWS:
        if any(row in methods for methods in found.values()):
            rows.append([row])
            for metric, (protocol, _, digits) in COLUMNS.items():
                figure = found[protocol].get(row, {}).get(metric)
                rows[-1].append(f"{figure['mean']:.{digits}f}" if figure else "")
    first = f"{data.parent.name}/{data.name}, {read['hidden-slices']['n_subjects']} subjects"
    return table([first, *(label for _, label, _ in COLUMNS.values())], rows)


def dense_truth(scanned: Path) -> None:
    """Hearts that are known everywhere, synthetic ones and a real one."""
    methods = "nearest,linear,cubic,registration,blend,calid,calid-mean,calid-crisp"
    dense = ("--protocol", "dense", "--max-subjects", "10", "--methods", methods, *KEPT)
    evaluate(Path("phantoms"), "dense-phantoms", *dense, notice=False)
    # The scan is for measuring, not for showing.
    evaluate(scanned, "dense-isotropic", *dense, notice=False, pictures=False)
    script("phantom_films.py", str(RESULTS / "phantom-films"))


def mark(path: Path) -> None:
    """Put the notice of the data below a table's first line, which names them."""
    first, rest = path.read_text().split("\n", 1)
    path.write_text(f"{first}\n\n{NOTICE}\n{rest}")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(markdown_table(head, rows)) + "\n"


def noted(text: str) -> str:
    """A table with the notice of the data above it."""
    return f"{NOTICE}\n\n{text}"


def segmentation(folders: list[Path]) -> str:
    """Dice of the segmentation network on whole real stacks, against manual labels."""
    segmenter = load_segmenter()
    lines = []
    for folder in folders:
        rows = []
        for stack in load_labelled(folder):
            found = segmenter.label_slices(stack.images, stack.spacing)
            found = keep_largest(found)
            rows.append([dice(found == c, stack.labels == c) for c in CLASSES.values()])
        means = np.nanmean(np.array(rows), axis=0)
        name = f"{folder.parent.name}/{folder.name} ({len(rows)})"
        lines.append([name, *(f"{m:.3f}" for m in [*means, means.mean()])])
    return table(["stacks", *CLASSES, "mean"], lines)


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
    rows = []
    for path in sorted(folder.glob("*.safetensors")):
        f = describe_weights(path)
        figures = ", ".join(f"{k} {v:.4g}" for k, v in f["figures"].items())
        size = [f"{f['parameters'] / 1e6:.2f} M", f"{f['bytes'] / 1e6:.1f}"]
        rows.append([path.stem, *size, f"`{f['sha256'][:16]}`", figures])
    return table(["file", "parameters", "MB", "sha256", "validation"], rows)


def demo() -> str:
    """What `calid demo` prints, without the paths; its picture goes to docs/pictures."""
    with tempfile.TemporaryDirectory() as folder:
        lines = calid("demo", "--out", folder).splitlines()
        picture = Path(lines[-1])
        (ROOT / "docs/pictures/demo.png").write_bytes(picture.read_bytes())
    return "```\n" + "\n".join(line.rstrip() for line in lines[:-3]) + "\n```\n"


def cohort_cost() -> str:
    """What as many films as UK Biobank has would cost, by the time that one film took."""
    costs = json.loads((RESULTS / "cost-film" / "summary.json").read_text())
    machine, (work,) = costs["machine"], costs["workloads"]
    (film,) = (r for r in costs["results"] if r["method"] == "calid")
    hours = COHORT * film["seconds"] * machine["cores"] / 3600
    return (
        f"One film of {work['slices']} slices, {work['frames']} frames and {work['side']} x "
        f"{work['side']} pixels took {film['seconds']:.0f} s\n"
        f"and {film['peak_mb'] / 1000:.1f} GB on {machine['cores']} cores of "
        f"{machine['processor']} ([table](../results/cost-film/table.md)).\n"
        f"{COHORT:,} films, the size of UK Biobank's imaging study, are {hours:,.0f} core-hours "
        f"at that pace:\n{hours / COHORT_CORES:.1f} hours on {COHORT_CORES:,} such cores.\n"
    )


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
