"""The labels, in ACDC's numbering."""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["CLASSES", "LV", "MYOCARDIUM", "RV"]

RV, MYOCARDIUM, LV = 1, 2, 3

CLASSES = MappingProxyType({"RV": RV, "MYO": MYOCARDIUM, "LV": LV})
"""Names of tables to labels: RV cavity, LV myocardium, LV cavity; 0 is everything else."""
