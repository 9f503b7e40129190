"""How the slices between two slices are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from calid.errors import UsageError

__all__ = ["Sampling"]

HOTTEST = 10.0
"""Largest temperature: far beyond any use, and far from where numbers overflow."""


@dataclass(frozen=True)
class Sampling:
    """How the slices between two slices are drawn.

    Parameters
    ----------
    samples
        Independent samples, averaged in the image, each from the stack in another of eight
        orientations; 0 draws the conditional mean with the texture of the slices around it,
        in one pass without any sampling (``default`` preset only).
    steps
        Sampler steps; none for the preset's own.
    temperature
        Scale of what is not the conditional mean, the starting noise and the texture carried
        over from the slices around: 1 samples the learned distribution and looks as crisp as
        they do; 0 is nearest to the truth in the mean square, and blurred.
    seed
        Of the noise.
    """

    samples: int = 1
    steps: int | None = None
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--samples", self.samples, 0),
            ("--steps", 1 if self.steps is None else self.steps, 1),
            ("--temperature", self.temperature, 0),
            ("--seed", self.seed, 0),
        ):
            if not value >= least:
                raise UsageError(name, f"{value} is too small.", f"Use {least} or more.")
        if self.temperature > HOTTEST:
            raise UsageError(
                "--temperature", f"{self.temperature} is too large.", f"Use {HOTTEST:g} or less."
            )
