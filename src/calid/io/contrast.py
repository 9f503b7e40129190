"""Images without any contrast: read as they are, but never without a word."""

from __future__ import annotations

import numpy as np

from calid.stack import SliceStack

__all__ = ["flat_images"]


def flat_images(stack: SliceStack) -> list[str]:
    """Say which images of a stack have one value everywhere.

    Returns
    -------
    list of str
        At most one sentence: there is nothing to say about a sound stack.
    """
    flat = stack.data.min(axis=(2, 3)) == stack.data.max(axis=(2, 3))
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
