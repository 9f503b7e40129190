"""Small pieces of HTML. Words that come in are escaped here and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from matplotlib.figure import Figure

from calid.report.png import png

__all__ = ["command", "facts", "paragraph", "picture", "section", "table"]


def section(title: str, *parts: str) -> str:
    """A headed section of parts that are HTML already."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """Plain words; ``kind`` is a class of the page's style."""
    return f"<p{_kind(kind)}>{escape(text)}</p>"


def command(line: str) -> str:
    """A command, broken between its options only."""
    first, *options = line.split(" --")
    words = (f"<span>{escape(word)}</span>" for word in [first, *(f"--{o}" for o in options)])
    return f'<p class="command">{" ".join(words)}</p>'


def facts(rows: Iterable[tuple[str, str]], kind: str = "") -> str:
    """A table of names and values."""
    lines = (
        f"<tr><th>{escape(name)}</th><td{_kind(kind)}>{escape(value)}</td></tr>"
        for name, value in rows
    )
    return f'<table class="facts"><tbody>{"".join(lines)}</tbody></table>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], foot: Sequence[str] | None = None
) -> str:
    """A table of figures; the first cell of every row names it."""

    def row(cells: Sequence[str], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    last = f"<tfoot>{row(foot, 'td')}</tfoot>" if foot else ""
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{body}</tbody>{last}</table>"


def picture(figure: Figure, words: str, caption: str, kind: str = "") -> str:
    """A figure within the page, as PNG; ``words`` are for those who cannot see it."""
    content = base64.b64encode(png(figure)).decode("ascii")
    return (
        f'<figure{_kind(kind)}><img src="data:image/png;base64,{content}" alt="{escape(words)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _kind(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""
