"""Notebooks as pages: text as it is, code in blocks, and the outputs that are stored in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page beside every notebook below docs."""
    root = Path(config.docs_dir)
    for path in sorted(root.rglob("*.ipynb")):
        uri = path.relative_to(root).with_suffix(".md").as_posix()
        content = as_markdown(json.loads(path.read_text()), path.name)
        files.append(File.generated(config, uri, content=content))
    return files


def as_markdown(notebook: dict[str, Any], name: str) -> str:
    """Markdown of a notebook."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    parts.append(f"This page is the notebook `{name}` beside it in the repository.")
    return "\n\n".join(parts) + "\n"
