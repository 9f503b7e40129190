"""What kind of machine this is; nothing that names it, and nothing that imports torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["available_cpus", "cpu_model"]


def available_cpus() -> int:
    """CPUs that this process may use; in a batch job, those of the job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """The processor, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, [*models[:1], platform.processor(), platform.machine()]), "unknown")
