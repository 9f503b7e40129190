"""`folder/*` in mkdocs.yml's nav: every page of the folder that the nav does not name before."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import Files


@event_priority(-100)  # after the hooks that add pages
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the patterns by pages."""
    pages = {f.src_uri for f in files.documentation_pages() if f.inclusion.is_included()}
    config.nav = _expand(config.nav or [], pages - set(_named(config.nav)))
    return files


def _named(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav or ()
    return [name for child in children for name in _named(child)]


def _expand(nav: Any, unnamed: set[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _expand(part, unnamed) for title, part in nav.items()}
    if not isinstance(nav, list):
        return nav
    out: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and entry.endswith("/*"):
            folder = PurePosixPath(entry).parent
            depth = 2 if folder.name == "results" else 1  # a result is a folder of its own
            found = sorted(
                page for page in unnamed if folder in PurePosixPath(page).parents[:depth]
            )
            unnamed.difference_update(found)
            out += found
        else:
            out.append(_expand(entry, unnamed))
    return out
