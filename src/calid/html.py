"""Templates of HTML pages that run and load only what is in them."""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["templates"]


def templates(package: str, folder: str = "") -> Environment:
    """The templates in a folder of a package; values are escaped as they are put in.

    Two filters are added: ``raw`` gives the text of a style or script of this folder, named
    before it, and ``csp_hash`` the hash by which a content security policy allows it.
    """
    loader = PackageLoader(package, folder)
    environment = Environment(
        loader=loader,
        autoescape=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def raw(name: str) -> Markup:
        return Markup(loader.get_source(environment, name)[0])

    def csp_hash(text: str) -> Markup:
        digest = hashlib.sha256(text.encode()).digest()
        return Markup(f"'sha256-{base64.b64encode(digest).decode('ascii')}'")

    environment.filters.update(raw=raw, csp_hash=csp_hash)
    return environment
