"""`calid view`: volumes side by side in the browser."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from calid.cli.console import say
from calid.errors import UsageError
from calid.inference.options import Reading

__all__ = ["View"]


@dataclass(frozen=True, kw_only=True)
class View:
    """Show volumes side by side in the browser, with linked planes and 3D.

    The page is served to this machine only, until it is interrupted (Ctrl-C), or written as
    one file that opens without a network. Slices are marked as acquired or generated from the
    record beside a reconstruction. Research use only.
    """

    volumes: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """NIfTI volumes, 3D or 4D, side by side."""
    sparse: Path | None = None
    """Stack that the first volume was reconstructed from,
    NIfTI or DICOM; shown as acquired and linear too."""
    uncertainty: Path | None = None
    """Uncertainty of the first volume, laid over it."""
    labels: Path | None = None
    """Labels of the first volume (see calid segment), laid over it."""
    label_map: str | None = None
    """Which values the labels have, if they are not 1 RV, 2 myocardium, 3 LV: LV=1,MYO=2,RV=3."""
    titles: tuple[str, ...] = ()
    """Titles of the volumes. Without them, the page still shows no file names."""
    html: Path | None = None
    """Write the page to this file instead of serving it."""
    port: int = 0
    """Port to serve on; 0 takes a free one."""
    browser: bool = True
    """Open the browser."""
    reading: Reading = field(default_factory=Reading)

    def run(self) -> None:
        """Read, build the page, and write it, or serve it until the user interrupts."""
        if self.html is not None:
            from calid.io.atomic import check_output

            inputs = [*self.volumes, self.sparse, self.uncertainty, self.labels]
            check_output(self.html, [p for p in inputs if p is not None], (".html",))
            if self.port:
                raise UsageError("--port", "A file needs no port.", "Leave out --port or --html.")
        from calid.io.labels import parse_label_map
        from calid.view.sources import load_scene

        overlays = self.uncertainty, self.labels
        read, known = self.reading.read, parse_label_map(self.label_map)
        scene = load_scene(self.volumes, self.sparse, *overlays, self.titles, read, known)
        if self.html is not None:
            from calid.view.page import write_page

            write_page(scene, self.html)
            say(str(self.html))
            return
        import webbrowser

        from calid.view.server import PageServer

        with PageServer(scene, self.port) as server:
            say(server.url)
            say("Only this machine can open it. Ctrl-C ends it.")
            if self.browser:
                webbrowser.open(server.url)
            with suppress(KeyboardInterrupt):
                server.serve_forever()
