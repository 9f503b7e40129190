"""Figures as files, light enough to be kept in a repository: grey or palette PNG, PDF, SVG."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from calid.io.atomic import atomic

__all__ = ["DOTS_PER_INCH", "LIGHT", "encode", "png", "save_figure"]

DOTS_PER_INCH = 110

LIGHT = 200_000
"""Bytes that a picture which is kept with results is not to exceed."""

SHADES = (256, 192, 128, 96, 64, 48, 32)
"""Greys or colours, as many as a picture may have. The human eye sees no steps among the first."""


def save_figure(
    figure: Figure, path: Path, dots_per_inch: int = DOTS_PER_INCH, limit: int | None = None
) -> None:
    """Write a figure (PNG, PDF or SVG by suffix), complete or not at all.

    Parameters
    ----------
    limit
        As `encode`; only of PNG.
    """
    kind = path.suffix.removeprefix(".").lower()
    with atomic(path) as file:
        if kind == "png":
            file.write(png(figure, dots_per_inch, limit))
        else:
            figure.savefig(file, format=kind, dpi=dots_per_inch)


def png(figure: Figure, dots_per_inch: int = DOTS_PER_INCH, limit: int | None = None) -> bytes:
    """A figure as PNG; see `encode`."""
    figure.set_dpi(dots_per_inch)
    canvas: Any = FigureCanvasAgg(figure)  # its methods declare no types
    canvas.draw()
    return encode(np.asarray(canvas.buffer_rgba())[..., :3], limit)


def encode(pixels: NDArray[np.uint8], limit: int | None = None) -> bytes:
    """Pixels ``(height, width, 3)`` as PNG, grey if they all are, else with a palette.

    Nothing is dithered, which would add grain that is not there.

    Parameters
    ----------
    limit
        Bytes. Above it, greys or colours become fewer, 32 at least.
    """
    grey = bool((pixels == pixels[..., :1]).all())
    content = b""
    for shades in SHADES:
        content = _grey(pixels[..., 0], shades) if grey else _coloured(pixels, shades)
        if limit is None or len(content) <= limit:
            break
    return content


def _grey(pixels: NDArray[np.uint8], shades: int) -> bytes:
    steps = shades - 1
    levels = np.rint(np.rint(np.arange(256) * steps / 255) * 255 / steps).astype(np.uint8)
    return _bytes(Image.fromarray(levels[pixels]))


def _coloured(pixels: NDArray[np.uint8], shades: int) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return _bytes(image.quantize(shades, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))


def _bytes(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
