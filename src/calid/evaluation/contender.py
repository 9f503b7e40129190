"""A method that takes part in an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calid.baselines.signature import Method

__all__ = ["Contender"]


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
    """

    name: str
    method: Method
    identity: str
    settings: Mapping[str, object] = field(default_factory=dict)
