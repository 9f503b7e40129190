"""Volumes, mass and ejection fraction from labels.

Volumes are sums of discs, which clinics call Simpson's rule (Schulz-Menger et al., Journal of
Cardiovascular Magnetic Resonance 22:19, 2020): every slice stands for a slab of its area. The
slab reaches half-way to either neighbour. Beyond the outermost slices there is no neighbour;
there it reaches as far out as it does inwards, so that with equal gaps every slice counts for
one whole spacing, and the volume is the sum of areas times the spacing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from calid.errors import DataError, GeometryError
from calid.io.labels import LV, MYOCARDIUM, RV

__all__ = [
    "DENSITY",
    "Chamber",
    "Function",
    "Measurement",
    "cavity_volumes",
    "ejection_fraction",
    "heart_function",
    "slab_widths",
]

DENSITY = 1.05
"""Of myocardium, in g/ml (Schulz-Menger et al., 2020)."""


@dataclass(frozen=True)
class Measurement:
    """What one frame holds, in millilitres.

    Parameters
    ----------
    lv_ml, rv_ml
        Cavities. Papillary muscles count as they are labelled; ACDC labels them as cavity.
    myocardium_ml
        Of the left ventricle.
    """

    lv_ml: float
    rv_ml: float
    myocardium_ml: float

    @property
    def mass_g(self) -> float:
        """Mass of the left ventricle in grams."""
        return DENSITY * self.myocardium_ml

    def figures(self) -> dict[str, float]:
        """Every figure under a name that ends with its unit."""
        return {**asdict(self), "mass_g": self.mass_g}


@dataclass(frozen=True)
class Chamber:
    """End-diastolic and end-systolic volume of one ventricle, in millilitres."""

    edv_ml: float
    esv_ml: float

    @property
    def sv_ml(self) -> float:
        """Stroke volume in ml."""
        return self.edv_ml - self.esv_ml

    @property
    def ef_percent(self) -> float:
        """Ejection fraction in %."""
        return ejection_fraction(self.edv_ml, self.esv_ml)

    def figures(self) -> dict[str, float]:
        """Every figure under a name that ends with its unit."""
        return {**asdict(self), "sv_ml": self.sv_ml, "ef_percent": self.ef_percent}


@dataclass(frozen=True)
class Function:
    """What the heart does between two frames.

    Parameters
    ----------
    ed_frame, es_frame
        End-diastole and end-systole, counted from 0.
    lv, rv
        The ventricles; no right one if its labels are absent at end-diastole.
    ed_mass_g
        Left-ventricular mass at end-diastole in grams.
    """

    ed_frame: int
    es_frame: int
    lv: Chamber
    rv: Chamber | None
    ed_mass_g: float

    def figures(self) -> dict[str, float | None]:
        """Every figure under a name that ends with its unit; none where there is no RV."""
        rows: dict[str, float | None] = {f"lv_{k}": v for k, v in self.lv.figures().items()}
        rv = self.rv.figures() if self.rv else dict.fromkeys(self.lv.figures())
        rows |= {f"rv_{k}": v for k, v in rv.items()}
        return rows | {
            "ed_mass_g": self.ed_mass_g,
            "ed_frame": self.ed_frame,
            "es_frame": self.es_frame,
        }


def slab_widths(
    positions: NDArray[np.float64], reach: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """How many millimetres every slice stands for.

    Parameters
    ----------
    positions
        Shape ``(slices,)``, mm, increasing, at least two.
    reach
        How far the first slab goes below the first position, and the last one above the last,
        in mm; by default half of the neighbouring gap. A dense reconstruction takes the
        reach of its sparse stack: then both measure the same body.

    Returns
    -------
    NDArray
        Shape ``(slices,)``, mm.

    Raises
    ------
    GeometryError
        If positions are fewer than two or do not increase.
    """
    gaps = np.diff(positions)
    if positions.ndim != 1 or not gaps.size or not np.all(gaps > 0):
        raise GeometryError(
            "positions", "A volume needs two or more increasing positions.", "Sort the slices."
        )
    first, last = (gaps[0] / 2, gaps[-1] / 2) if reach is None else reach
    sides = np.concatenate([[first], gaps / 2, [last]])
    return np.asarray(sides[:-1] + sides[1:], np.float64)


def cavity_volumes(
    labels: NDArray[np.uint8],
    positions: NDArray[np.float64],
    pixel_spacing: tuple[float, float],
    reach: tuple[float, float] | None = None,
    source: object = "labels",
) -> list[Measurement]:
    """Volumes of every frame by the sum of discs.

    Parameters
    ----------
    labels
        Shape ``(frames, slices, height, width)``; see `calid.io.labels`.
    positions
        Shape ``(slices,)``, mm along the slice normal, evenly spaced or not.
    pixel_spacing
        In-plane ``(row, column)`` spacing in mm.
    reach
        As `slab_widths`.
    source
        What an error message is about, for example the file.

    Raises
    ------
    GeometryError
        If labels and positions do not fit each other, or positions do not increase.
    DataError
        If a frame has no pixel of left-ventricular cavity: the heart was not found, and 0 ml
        would pass for a measurement.
    """
    if labels.ndim != 4 or labels.shape[1] != len(positions):
        raise GeometryError(
            source,
            f"Labels of shape {labels.shape} do not fit {len(positions)} positions.",
            "Give (frames, slices, height, width) and one position per slice.",
        )
    # 1000 cubic millimetres are a millilitre.
    per_pixel = slab_widths(positions, reach) * (pixel_spacing[0] * pixel_spacing[1] / 1000)
    # A frame at a time: masks of a dense film would take as much memory as the film.
    rows = np.array(
        [[(f == c).sum((1, 2)) @ per_pixel for c in (LV, RV, MYOCARDIUM)] for f in labels]
    )
    empty = np.flatnonzero(rows[:, 0] == 0)
    if empty.size:
        raise DataError(
            source,
            f"No slice of frame {empty[0]} (from 0) has left-ventricular cavity in its labels.",
            "Check that this is a short-axis stack, and that manual labels have the cavity as 3.",
        )
    return [Measurement(*row) for row in rows.tolist()]


def ejection_fraction(edv: float, esv: float) -> float:
    """Share of the end-diastolic volume that is ejected, in %.

    Raises
    ------
    DataError
        If there is no end-diastolic volume to take a share of.
    """
    if not edv > 0:
        raise DataError(
            "ejection fraction",
            f"An end-diastolic volume of {edv:g} ml has no fractions.",
            "Check the labels of the end-diastolic frame.",
        )
    return 100 * (edv - esv) / edv


def heart_function(
    frames: Sequence[Measurement], ed: int | None = None, es: int | None = None
) -> Function:
    """End-diastole, end-systole and what is between them.

    End-diastole is the frame of the largest LV cavity, end-systole that of the smallest; the
    right ventricle is measured at the same two frames.

    Parameters
    ----------
    frames
        Two or more.
    ed, es
        Frames of end-diastole and end-systole, counted from 0, if they are known.

    Raises
    ------
    DataError
        If there are fewer than two frames.
    """
    if len(frames) < 2:
        raise DataError(
            "frames", "A single frame has no ejection fraction.", "Give end-systole as well."
        )
    cavity = [frame.lv_ml for frame in frames]
    ed = int(np.argmax(cavity)) if ed is None else ed
    es = int(np.argmin(cavity)) if es is None else es
    full, rest = frames[ed], frames[es]
    rv = Chamber(full.rv_ml, rest.rv_ml) if full.rv_ml > 0 else None
    return Function(ed, es, Chamber(full.lv_ml, rest.lv_ml), rv, full.mass_g)
