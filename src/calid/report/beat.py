"""Hidden slices of a film over the heartbeat, the truth beside what methods made of it."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from calid.io.atomic import atomic
from calid.report.figures import LIGHT
from calid.report.film import around, centre_of_motion

__all__ = ["save_beat"]

COLUMNS = ("truth", "registration", "calid-2d", "calid")
"""What is shown, as far as it is there."""

SIDE, SPACE, TITLE = 72, 2, 14
"""Most pixels of a panel's side; pixels between panels, and above them for the names."""

FRAMES, GREYS = (15, 10, 6), (64, 32, 16)
"""Numbers of frames and of greys that are tried until the file is light enough."""

BEAT = 1000
"""Milliseconds in which a beat is shown; the true length is not known here."""


def save_beat(films: Mapping[str, NDArray[np.float32]], path: Path) -> None:
    """Write a grey animated PNG of one heartbeat, in a loop.

    Rows are slices and columns are `COLUMNS`; images are cropped around what moves. There are as
    many frames and greys as fit into `LIGHT`.

    Parameters
    ----------
    films
        Name to ``(frames, slices, height, width)`` in window units, ``truth`` among them; all of
        one shape.
    """
    truth = films["truth"]
    rows, columns = (
        slice(part.start, part.stop, -(-(part.stop - part.start) // SIDE))
        for part in (
            around(place, max(SIDE, size // 2), size)
            for place, size in zip(centre_of_motion(truth), truth.shape[2:], strict=True)
        )
    )
    shown = {name: films[name][:, :, rows, columns] for name in COLUMNS if name in films}
    for count, greys in product(FRAMES, GREYS):
        frames = np.unique(np.arange(count) * len(truth) // count)
        pictures = [_picture(shown, frame, greys) for frame in frames]
        buffer = BytesIO()
        first, *others = pictures
        each = BEAT / len(frames)
        first.save(buffer, "PNG", save_all=True, append_images=others, duration=each, loop=0)
        if buffer.tell() <= LIGHT:
            break
    with atomic(path) as file:
        file.write(buffer.getvalue())


def _picture(shown: Mapping[str, NDArray[np.float32]], frame: int, greys: int) -> Image.Image:
    _, slices, height, width = shown["truth"].shape
    size = len(shown) * (width + SPACE) - SPACE, TITLE + slices * (height + SPACE) - SPACE
    picture = Image.new("L", size)
    for column, (name, film) in enumerate(shown.items()):
        left = column * (width + SPACE)
        ImageDraw.Draw(picture).text((left + 1, 0), name, fill=255)
        levels = np.rint(np.rint(film[frame].clip(0, 1) * (greys - 1)) * 255 / (greys - 1))
        for row, image in enumerate(levels.astype(np.uint8)):
            picture.paste(Image.fromarray(image), (left, TITLE + row * (height + SPACE)))
    return picture
