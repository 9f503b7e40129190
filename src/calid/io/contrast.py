"""Images without any contrast, or of labels: read as they are, but never without a word."""

from __future__ import annotations

import numpy as np

from calid.stack import SliceStack

__all__ = ["doubtful_images"]

MOST_LABELS = 8
"""Most different values that a label map of a heart has."""


def doubtful_images(stack: SliceStack) -> list[str]:
    """Say which images of a stack have one value everywhere, or that all seem to be labels.

    Returns
    -------
    list of str
        At most one sentence: there is nothing to say about a sound stack.
    """
    flat = stack.data.min(axis=(2, 3)) == stack.data.max(axis=(2, 3))
    if not flat.all() and _labels(stack):
        few = f"all voxels are whole numbers below {MOST_LABELS}"
        return [f"{stack.source}: {few}. Are these labels, not images?"]
    if not flat.any():
        return []
    if stack.data.min() == stack.data.max():
        return [f"{stack.source}: all voxels have the same value. Is this the right input?"]
    frame, number = np.argwhere(flat)[0]
    return [
        f"{stack.source}: {int(flat.sum())} of {flat.size} images have the same value everywhere, "
        f"the first in frame {frame}, slice {number} (counted from 0). Do not trust what is "
        "generated beside them."
    ]


def _labels(stack: SliceStack) -> bool:
    if stack.data.min() < 0 or stack.data.max() >= MOST_LABELS:
        return False
    return bool((stack.data == np.rint(stack.data)).all())
