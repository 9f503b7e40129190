"""A ruler along the slices: which are acquired, which are generated."""

from __future__ import annotations

import numpy as np

from calid.stack import Volume

__all__ = ["ruler"]

LABELS = 6
"""Most positions that are written out: more would run into each other on a phone."""


def ruler(volume: Volume) -> str:
    """Inline SVG, as wide as its place: a tall tick an acquired slice, a short one generated.

    Lengths are shares of the width, so that text keeps its size on every screen. The look of
    ``.acquired``, ``.generated`` and ``text`` is the page's.
    """
    span = float(volume.positions[-1])
    shares = 2.0 + 96.0 * volume.positions / span

    def ticks(places: np.ndarray, kind: str, top: int, bottom: int) -> str:
        lines = (f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="{top}" y2="{bottom}"/>' for x in places)
        return f'<g class="{kind}">{"".join(lines)}</g>'

    real = np.flatnonzero(volume.acquired)
    step = max(1, -(-(len(real) - 1) // (LABELS - 1)))
    named = [*real[:-1:step], real[-1]]
    if len(named) > 2 and named[-1] - named[-2] < step * (real[1] - real[0]) / 2:
        del named[-2]  # it would touch the last one
    words = "".join(
        f'<text x="{shares[i]:.2f}%" y="60" text-anchor="middle">{volume.positions[i]:.4g}</text>'
        for i in named
    )
    return (
        '<svg class="ruler" width="100%" height="66" role="img" aria-label="'
        f'{len(real)} acquired and {len(shares) - len(real)} generated slices">'
        f"{ticks(shares[~volume.acquired], 'generated', 18, 32)}"
        f"{ticks(shares[volume.acquired], 'acquired', 4, 46)}{words}</svg>"
    )
