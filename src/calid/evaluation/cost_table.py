"""Costs as a table, ratios first: times alone say more about the machine than the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["cost_table"]


def cost_table(costs: Mapping[str, Any]) -> str:
    """The outcome of `measure_cost` as Markdown, ratios first."""
    lines = []
    for work in costs["workloads"]:
        rows = [r for r in costs["results"] if r["workload"] == work["name"]]
        slow, fast = (
            next((r for r in rows if r["kind"] == kind), None)
            for kind in ("pixel-diffusion", "linear")
        )
        lines += [
            f"{work['name']}: {work['slices']} slices to {work['dense_slices']}, "
            f"{work['frames']} frame(s), {work['side']} x {work['side']} pixels, on "
            f"{_named(costs['machine'], rows)}.",
            "",
            "| method | speed, pixel diffusion = 1 | operations, pixel diffusion = 1 "
            "| memory, pixel diffusion = 1 | time, linear = 1 | time s | 10^12 operations "
            "| loading s | peak MB | GPU peak MB |",
            "|---" * 10 + "|",
        ]
        for row in rows:
            cells = [
                row["method"],
                _ratio(slow, row, "seconds"),
                _ratio(row, slow, "operations"),
                _ratio(row, slow, "peak_mb"),
                _ratio(row, fast, "seconds"),
                f"{row['seconds']:.3g}{' *' if row['extrapolated'] else ''}",
                "" if row["operations"] is None else f"{row['operations'] / 1e12:.3g}",
                f"{row['load_seconds']:.3g}",
                f"{row['peak_mb']:.0f}",
                "" if row["gpu_peak_mb"] is None else f"{row['gpu_peak_mb']:.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        notes = [f"\\* {r['method']}: {r['basis']}" for r in rows if r["extrapolated"]]
        lines += ["", *notes, ""] if notes else [""]
    return "\n".join(lines)


def _ratio(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, key: str) -> str:
    return "" if a is None or b is None or not a[key] or not b[key] else f"{a[key] / b[key]:.3g}"


def _named(machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    gpus = sorted({r["gpu"] for r in rows if r["gpu"]})
    return ", ".join([machine["processor"], f"{machine['cores']} core(s)", *gpus])
