"""Surfaces of the two ventricles as functions of place and phase, and their exact volumes.

Every surface is star-shaped around the left-ventricular axis within a short-axis plane, and
the axis only shears the planes. So each has an implicit form (signed, in millimetres near
the surface), for drawing, and a polar form, for integrating; both have the same zero set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calid.data.anatomy import Anatomy, contraction

__all__ = ["Array", "Beat", "Surfaces", "VentricleVolumes", "Ventricles", "unit"]

Array = NDArray[Any]  # float32, but numpy's stubs take float * float32 for float64

# Nodes of the quadrature along z and around the axis.
_LEVELS, _RAYS = 320, 180


class VentricleVolumes(NamedTuple):
    """Volumes in millilitres, each of shape ``(phases,)``."""

    lv: NDArray[np.float64]
    rv: NDArray[np.float64]
    myocardium: NDArray[np.float64]


@dataclass(frozen=True)
class Beat:
    """Dimensions (mm) of the ventricles at one phase."""

    contraction: float
    base: float
    waist: float
    endo_radius: float
    endo_half: float
    epi_radius: float
    epi_half: float
    rv_radial: float
    rv_tangential: float
    rv_half: float
    twist: float


class Surfaces(NamedTuple):
    """Signed distances in mm (negative inside), broadcast over the points."""

    endo: Array
    epi: Array
    rv: Array
    below_base: Array
    dx: Array
    dy: Array
    radius: Array
    cos: Array
    sin: Array
    level: Array


class Ventricles:
    """Both ventricles; the end-systolic cavity radius is solved for the ejection fraction."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        a = anatomy
        squeeze = np.sqrt((1 - a.ejection_fraction) / (1 - a.shortening))
        self._radius_es = a.lv_radius_ed * float(squeeze)
        full = self._volumes_of(self.beat(0.0))[0]
        for _ in range(3):
            rest = self._volumes_of(self.beat(a.end_systole))[0] / full
            self._radius_es *= float(np.sqrt((1 - a.ejection_fraction) / rest))

    @property
    def apex(self) -> float:
        """Z of the epicardial apex in mm; it stays put over the cycle."""
        return self.anatomy.lv_length_ed + self.anatomy.apex_wall

    def beat(self, phase: float) -> Beat:
        """Dimensions at a phase (cycles, periodic)."""
        a = self.anatomy
        c = contraction(a, phase)
        base = c * a.shortening * a.lv_length_ed
        waist = base + a.waist * (a.lv_length_ed - base)
        endo = a.lv_radius_ed + c * (self._radius_es - a.lv_radius_ed)
        # The wall keeps its volume but for the few percent of blood that it loses.
        stretch = a.lv_length_ed / (a.lv_length_ed - base)
        ring = (a.lv_radius_ed + a.wall_ed) ** 2 - a.lv_radius_ed**2
        epi = float(np.sqrt(endo**2 + ring * stretch * (1 - 0.04 * c)))
        depth = a.rv_depth_ed + c * (a.rv_depth_es - a.rv_depth_ed)
        radial = (epi * (1 + max(a.septal_bulge, 0.0)) + depth) / (1 + a.rv_offset)
        return Beat(
            contraction=c,
            base=base,
            waist=waist,
            endo_radius=endo,
            endo_half=a.lv_length_ed - 0.3 * c * a.apex_wall - waist,
            epi_radius=epi,
            epi_half=self.apex - waist,
            rv_radial=radial,
            rv_tangential=radial * a.rv_aspect,
            rv_half=(self.apex - waist) * a.rv_reach,
            twist=c * a.twist,
        )

    def axis(self, z: Array) -> tuple[Array, Array]:
        """In-plane position of the left-ventricular axis at height z, mm."""
        a = self.anatomy
        s = z / self.apex
        x = a.centre[0] + a.tilt[0] * s + a.bend[0] * s * s
        y = a.centre[1] + a.tilt[1] * s + a.bend[1] * s * s
        return x, y

    def surfaces(self, x: Array, y: Array, z: Array, beat: Beat) -> Surfaces:
        """Signed distances at points of the heart's frame (mm, float32, broadcast).

        Exact in sign; in size close to a distance near each surface only.
        """
        a = self.anatomy
        cx, cy = self.axis(z)
        dx, dy = x - cx, y - cy
        radius = np.sqrt(dx * dx + dy * dy) + 1e-3
        cos, sin = dx / radius, dy / radius
        endo, epi, rv, facing = self._outlines(cos, sin, z, beat)
        below = z - beat.base - a.base_slope * radius * _wave(cos, sin, 1, a.base_angle)
        level = (z - beat.base) / (a.lv_length_ed - beat.base)
        return Surfaces(
            endo=_shell(radius, z, endo, beat.waist, beat.endo_half, a.taper),
            epi=_shell(radius, z, epi, beat.waist, beat.epi_half, a.taper),
            # Where a ray leaves the outline at a slant, the surface is nearer than along the ray.
            rv=_shell(radius, z, rv, beat.waist, beat.rv_half, a.rv_taper) * facing,
            below_base=below,
            dx=dx,
            dy=dy,
            radius=radius,
            cos=cos,
            sin=sin,
            level=level,
        )

    def volumes(self, phases: tuple[float, ...]) -> VentricleVolumes:
        """Volumes by polar quadrature: analytic along the radius, midpoint rule otherwise.

        Papillary muscles count as cavity, as in manual contours.
        """
        rows = np.array([self._volumes_of(self.beat(p)) for p in phases]).reshape(-1, 3)
        return VentricleVolumes(rows[:, 0], rows[:, 1], rows[:, 2])

    def _volumes_of(self, beat: Beat) -> tuple[float, float, float]:
        a = self.anatomy
        top = beat.base - 1.05 * a.base_slope * (beat.rv_radial * (1 + a.rv_offset) + 5)
        step = (self.apex - top) / _LEVELS
        z = (top + step * (np.arange(_LEVELS) + 0.5)).astype(np.float32)[:, None]
        angle = (np.arange(_RAYS) + 0.5) * (2 * np.pi / _RAYS)
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        endo, epi, rv, _ = self._outlines(cos, sin, z, beat)
        endo = endo * _profile(z, beat.waist, beat.endo_half, a.taper)
        epi = epi * _profile(z, beat.waist, beat.epi_half, a.taper)
        rv = rv * _profile(z, beat.waist, beat.rv_half, a.rv_taper)
        # The valve plane cuts each ray once: it keeps [0, cut] where it sinks, else [cut, inf).
        slope = a.base_slope * _wave(cos, sin, 1, a.base_angle)
        cut = np.maximum((z - beat.base) / np.where(np.abs(slope) < 1e-7, 1e-7, slope), 0.0)
        sinks = slope > 0

        def sector(inner: Array | float, outer: Array) -> float:
            low = np.where(sinks, inner, np.maximum(inner, cut))
            high = np.where(sinks, np.minimum(outer, cut), outer)
            kept = np.clip(high**2 - low**2, 0, None) * (high > low)
            return float(kept.sum(dtype=np.float64)) * step * (np.pi / _RAYS) / 1000

        cavity = sector(0.0, endo)
        return cavity, sector(epi, rv), sector(0.0, epi) - cavity

    def _outlines(
        self, cos: Array, sin: Array, z: Array, beat: Beat
    ) -> tuple[Array, Array, Array, Array]:
        """Widest endocardium, epicardium and right ventricle, and the latter's `_rv_reach` facing.

        Distances from the axis in mm.
        """
        a = self.anatomy
        facing = 0.5 + 0.5 * _wave(cos, sin, 1, a.rv_angle)
        along = np.exp(-(((z - 0.3 * self.apex) / (0.35 * self.apex)) ** 2))
        bulged = _one_plus(cos, sin, a.epi_waves) + a.septal_bulge * facing * facing * along
        rv, slant = self._rv_reach(cos, sin, z, beat)
        endo = beat.endo_radius * _one_plus(cos, sin, a.endo_waves)
        return endo, beat.epi_radius * bulged, rv, slant

    def _rv_reach(self, cos: Array, sin: Array, z: Array, beat: Beat) -> tuple[Array, Array]:
        """Where rays from the axis leave the widest right-ventricular outline.

        The outline is an ellipse around a point between septum and free wall, bent by a
        third harmonic; the axis lies inside it. Returns the distance from the axis in mm, and the
        cosine between ray and outward normal.
        """
        a = self.anatomy
        turn = a.rv_angle + a.rv_spiral * z / self.apex
        ct, st = np.cos(turn), np.sin(turn)
        out, across = cos * ct + sin * st, sin * ct - cos * st
        p, s = out * (1 / beat.rv_radial), across * (1 / beat.rv_tangential)
        k = np.float32(a.rv_offset)
        square = p * p + s * s
        reach = (p * k + np.sqrt((p * k) ** 2 + square * (1 - k * k))) / square
        nx = (reach * p - k) * (1 / beat.rv_radial)
        ny = reach * s * (1 / beat.rv_tangential)
        facing = (nx * out + ny * across) / np.sqrt(nx * nx + ny * ny)
        factor = 1 + a.rv_wave[0] * _wave(out, across, 3, a.rv_wave[1])
        return reach * factor, facing


def unit(angle: float) -> tuple[np.float32, np.float32]:
    """Cosine and sine of an angle, in the precision of the arrays."""
    return np.float32(np.cos(angle)), np.float32(np.sin(angle))


def _wave(cos: Array, sin: Array, order: int, angle: float) -> Array:
    """``cos(order * (theta - angle))`` from the cosine and sine of theta."""
    c, s = cos, sin
    for _ in range(order - 1):
        c, s = c * cos - s * sin, s * cos + c * sin
    x, y = unit(order * angle)
    return c * x + s * y


def _one_plus(cos: Array, sin: Array, waves: NDArray[np.float64]) -> Array:
    total = 1 + np.float32(waves[0, 0]) * _wave(cos, sin, 2, float(waves[0, 1]))
    return total + np.float32(waves[1, 0]) * _wave(cos, sin, 3, float(waves[1, 1]))


def _power(z: Array, waist: float, half: float, taper: float) -> Array:
    return np.abs((z - waist) / half) ** taper


def _profile(z: Array, waist: float, half: float, taper: float) -> Array:
    """Radius along the long axis as a share of the widest, 0 past the apex."""
    return np.asarray(np.sqrt(np.maximum(1 - _power(z, waist, half, taper), 0)))


def _shell(
    radius: Array, z: Array, widest: Array, waist: float, half: float, taper: float
) -> Array:
    """First-order distance to ``(radius / widest)^2 + |(z - waist) / half|^taper = 1``."""
    power = _power(z, waist, half, taper)
    share = radius / widest
    value = share * share + power
    axial = taper * power / (np.abs(z - waist) + 1e-3)
    slope = np.sqrt((2 * share / widest) ** 2 + axial * axial)
    return (value - 1) / (slope + 2e-3)
