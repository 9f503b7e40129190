"""What can be asked of a reconstruction; the same for one stack and for a cohort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from calid.inference.model import Sampling

__all__ = ["Generation"]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How dense the answer is, and how what lies between the slices is generated."""

    factor: int | None = None
    """Cut every gap into this many steps. Without factor or spacing: nearest to isotropic."""
    spacing: float | None = None
    """Wanted through-plane spacing in mm; the nearest that keeps acquired slices in place."""
    samples: int | None = None
    """Samples to draw and average; 0 is the conditional mean in one pass (default preset).
    Without: the mean, or 8 for an uncertainty, or one sample of the paper preset."""
    seed: int = 0
    """Same seed, same result."""
    preset: Literal["default", "paper"] = "default"
    """Which released model."""
    steps: int | None = None
    """Sampler steps. Without, the preset's own."""
    temperature: float = 1.0
    """Scale of the starting noise; below 1 samples vary less."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def sampling(self, uncertainty: bool = False) -> Sampling:
        """How samples are drawn, with their number decided.

        Parameters
        ----------
        uncertainty
            Whether a standard deviation over samples is wanted.

        Raises
        ------
        UsageError
            If an option is out of range, or options contradict each other.
        """
        from calid.inference.model import Sampling
        from calid.inference.reconstruct import check_density, choose_samples

        check_density(self.factor, self.spacing)
        samples = choose_samples(self.samples, self.preset, uncertainty)
        return Sampling(samples, self.steps, self.temperature, self.seed)

    def request(self) -> dict[str, Any]:
        """What was asked for, by name; equal requests of one release give equal slices.

        The device is left out: results on different devices agree within their precision.
        """
        sampling = self.sampling()
        return {
            "factor": self.factor,
            "spacing_mm": self.spacing,
            "samples": sampling.samples,
            "seed": sampling.seed,
            "preset": self.preset,
            "steps": sampling.steps,
            "temperature": sampling.temperature,
        }
