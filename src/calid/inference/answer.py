"""What is asked of a reconstruction: which answer lies between the slices."""

from __future__ import annotations

from dataclasses import dataclass

from calid.errors import UsageError

__all__ = ["Answer"]


@dataclass(frozen=True)
class Answer:
    """What is generated between the slices.

    Parameters
    ----------
    dial
        From 0, the conditional mean, to 1, as crisp as a real slice: a straight line between the
        two in pixels (Freirich et al., NeurIPS 2021). None for the position that the weights
        come with.
    samples
        Draw this many posterior samples and average them, instead of the answer at the dial;
        0 for that answer. The paper's preset only samples.
    steps
        Of the transport, or of the sampler of every sample. None for those that the weights come
        with.
    seed
        Of all noise.

    Raises
    ------
    UsageError
        If a number is out of range, or a dial is given for samples.
    """

    dial: float | None = None
    samples: int = 0
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--samples", self.samples, 0),
            ("--steps", 1 if self.steps is None else self.steps, 1),
            ("--seed", self.seed, 0),
        ):
            if not value >= least:
                raise UsageError(name, f"{value} is too small.", f"Use {least} or more.")
        if self.dial is not None and not 0 <= self.dial <= 1:
            raise UsageError(
                "--dial",
                f"{self.dial} is not a position of the dial.",
                "Use 0 (mean) to 1 (crisp).",
            )
        if self.dial is not None and self.samples:
            raise UsageError(
                "--dial and --samples",
                "A sample is as crisp as a real slice: it has no dial.",
                "Give one of the two.",
            )
