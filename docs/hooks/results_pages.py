"""Tables of `calid evaluate` as pages: a title above, the run's pictures below."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

PICTURES = {
    "curves.png": "Left-ventricular volume over the cycle, exact and as measured.",
    "training.png": "Validation while the networks learned: all gaps, an exam's, and wider.",
    "tradeoff.png": "Each figure against sharpness: a line a setting, a cross a method.",
    "differences.png": "Paired differences over linear, one dot a subject.",
    "calibration.png": "How often the samples' intervals hold; their spread and the error of their "
    "average, one dot a slice, one colour a subject.",
    "examples-*.png": "A hidden slice, and what each method made of it.",
    "along-z.png": "How crisp slices are between two acquired ones; the band is 0.85-1.1.",
    "long-axis.png": "A long-axis cut through one heart, all slices acquired or generated.",
    "m-mode-*.png": "The middle row of a hidden slice against time, through two beats.",
    "beat-*.png": "The lowest, middle and highest hidden slice of a subject through one beat.",
    "errors-*.png": "The errors of the same answers: red is too bright, blue too dark.",
}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Complete a table; other pages stay as they are."""
    path = PurePosixPath(page.file.src_uri)
    if path.parts[0] != "results" or path.name != "table.md":
        return markdown
    lines = [f"# {path.parent.name.replace('-', ' ').capitalize()}", "", markdown.rstrip(), ""]
    for name, caption in PICTURES.items():
        for picture in sorted((Path(config.docs_dir) / path.parent).glob(name)):
            lines += [f"{caption}", "", f"![{caption}]({picture.name})", ""]
    lines.append("What the rows and columns are: [Results](../README.md).")
    return "\n".join(lines) + "\n"
