"""A method that takes part in an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calid.baselines.signature import Method
from calid.evaluation.case import Case
from calid.inference.model import FEWEST_FRAMES

__all__ = ["Contender", "Sampler"]


@dataclass(frozen=True)
class Contender:
    """A named method.

    Parameters
    ----------
    name
        Of its row.
    method
        What it does.
    identity
        Changes whenever its answers would: name, code, weights' hashes, settings.
    settings
        How it samples, for the record.
    film
        What it does where it knows films: as `method`, with one more axis of frames in front
        of images and answer.
    """

    name: str
    method: Method
    identity: str
    settings: Mapping[str, object] = field(default_factory=dict)
    film: Method | None = None

    def answer(self, case: Case) -> NDArray[np.float32]:
        """The answer to a case, ``(frames, targets, height, width)``.

        Frames are answered one by one, but for films of a method that knows them.
        """
        asked = case.positions, case.targets, case.spacing
        if self.film is not None and len(case.images) >= FEWEST_FRAMES:
            return self.film(case.images, *asked)
        return np.stack([self.method(images, *asked) for images in case.images])


@dataclass(frozen=True)
class Sampler(Contender):
    """One that answers with its samples one by one, not with what they are averaged to.

    Its `method` puts an axis of samples in front: ``(samples, targets, height, width)``.
    """

    def answer(self, case: Case) -> NDArray[np.float32]:
        """All samples of a case's first frame; they take the place of the frames."""
        return self.method(case.images[0], case.positions, case.targets, case.spacing)
