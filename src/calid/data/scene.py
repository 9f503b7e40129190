"""Signal of a heart in its chest, as a short-axis balanced-SSFP film shows it.

The picture is painted from back to front: lung and abdomen, fat and pericardium, the walls of
heart and vessels, blood, what hangs in the blood, and the chest wall. Every edge is a soft step
about 1.5 mm wide, so that sampling at points hardly aliases. Smooth random fields and Rician noise
make the drawing look scanned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from calid.data.ventricles import Array, Beat, Surfaces, Ventricles, unit

__all__ = ["Contrast", "NoiseField", "Scene", "draw_contrast", "rician"]


@dataclass(frozen=True)
class Contrast:
    """Signal of each tissue; 1 is about the brightest part of the image."""

    blood: float
    rv_blood: float
    muscle: float
    fat: float
    lung: float
    liver: float
    skeletal: float
    coil_length: float  # distance from the chest wall over which the coil's gain falls by e, mm
    flow: float  # strength of the mottling of blood
    trabeculae: float  # how deeply trabeculae reach into the cavities, mm


def draw_contrast(rng: np.random.Generator) -> Contrast:
    """Draw the contrast of one scan."""
    u = rng.uniform
    blood = u(0.70, 0.88)
    return Contrast(
        blood=blood,
        rv_blood=blood * u(0.74, 0.95),
        muscle=u(0.20, 0.30),
        fat=u(0.62, 0.85),
        lung=u(0.04, 0.12),
        liver=u(0.20, 0.34),
        skeletal=u(0.11, 0.18),
        coil_length=u(130, 320),
        flow=u(0.04, 0.13),
        trabeculae=u(1.0, 2.2),
    )


class NoiseField:
    """A smooth random function of space, periodic, of mean 0 and standard deviation 1.

    Parameters
    ----------
    rng
        Source of randomness.
    cells
        Grid points per axis of one period.
    smoothing
        Standard deviation of the smoothing kernel in grid cells.
    """

    def __init__(self, rng: np.random.Generator, cells: int = 40, smoothing: float = 1.2) -> None:
        white = rng.standard_normal((cells, cells, cells), dtype=np.float32)
        smooth = ndimage.gaussian_filter(white, smoothing, mode="wrap")
        self._grid: Array = ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)
        self._closed = np.pad(self._grid, (0, 1), mode="wrap").astype(np.float64)

    def __call__(self, x: Array, y: Array, z: Array, scale: float, shift: float = 0.0) -> Array:
        """Sample the field at ``x, y, z`` in mm, broadcast against each other; float32.

        ``scale`` is mm per grid cell, and features are about three cells wide. ``shift`` is an
        offset in cells, so that one field serves several uses.
        """
        factor = 1 / scale
        points = z * factor + shift, y * factor + 1.7 * shift, x * factor + 2.3 * shift
        if z.size == 1:
            return self._in_plane(*points)
        out = np.empty(np.broadcast_shapes(*(p.shape for p in points)), np.float32)
        every = np.broadcast_arrays(*points)
        ndimage.map_coordinates(self._grid, every, output=out, order=1, mode="grid-wrap")
        return out

    def _in_plane(self, z: Array, y: Array, x: Array) -> Array:
        """The bits of scipy's `map_coordinates` for a single z, in less time.

        For that, products and sums are taken in its order, in double precision.
        """
        period = len(self._grid)
        level, shares = _cell(z, period)
        row, (upper, lower) = _cell(y, period)
        column, (left, right) = _cell(x, period)
        first = row * (period + 1) + column
        total = np.zeros(np.broadcast_shapes(z.shape, first.shape))
        for plane, share in zip(self._closed[level.item() :], shares, strict=False):
            values = (plane * share.item()).ravel()
            for step, along_y, along_x in (
                (0, upper, left),
                (1, upper, right),
                (period + 1, lower, left),
                (period + 2, lower, right),
            ):
                corner = values[step:].take(first, mode="clip")
                corner *= along_y
                corner *= along_x
                total += corner
        return total.astype(np.float32)


def _cell(points: Array, period: int) -> tuple[NDArray[np.intp], tuple[Array, Array]]:
    """Grid cell of each point, from 0 to below the period, and the weights of its two ends."""
    low = np.floor(points)
    first = 1 - (points - low.astype(np.float64))
    return (low - period * np.floor(low / period)).astype(np.intp), (first, 1 - first)


class _Points(NamedTuple):
    """Places in mm, two textures there, and mm outwards from the inner chest wall."""

    x: Array
    y: Array
    z: Array
    tissue: Array
    grain: Array
    depth: Array


class Scene:
    """Everything that gives signal, for one anatomy and one contrast; ``rng`` draws textures."""

    def __init__(
        self, ventricles: Ventricles, contrast: Contrast, rng: np.random.Generator
    ) -> None:
        self.ventricles = ventricles
        self.contrast = contrast
        self._coarse = NoiseField(rng, cells=40, smoothing=1.6)
        self._fine = NoiseField(rng, cells=40, smoothing=1.2)

    def signal(self, x: Array, y: Array, z: Array, beat: Beat) -> Array:
        """Noise-free signal, about 0 to 1.2, at points of the heart's frame (mm, broadcast)."""
        c = self.contrast
        s = self.ventricles.surfaces(x, y, z, beat)
        tissue, grain = self._coarse(x, y, z, 5.0), self._fine(x, y, z, 1.6)
        depth = self._chest_depth(x, y, z)
        points = _Points(x, y, z, tissue, grain, depth)
        image = self._background(points)
        image = self._heart(image, points, s, beat)
        image = self._chest_wall(image, points)
        gain = np.exp((depth + self.ventricles.anatomy.chest_distance) * (1 / c.coil_length))
        gain *= 1 + 0.04 * tissue
        return np.asarray(np.maximum(image * np.minimum(gain, 1.3), 0))

    def _chest_depth(self, x: Array, y: Array, z: Array) -> Array:
        """Millimetres outwards from the inner chest wall; negative in the chest."""
        a = self.ventricles.anatomy
        nx, ny = unit(a.chest_angle)
        across = y * nx - x * ny
        inner = a.chest_distance - a.chest_slope * z
        return x * nx + y * ny - inner + across * across * (1 / 420)

    def _background(self, points: _Points) -> Array:
        x, y, z, tissue, grain, _ = points
        a, c = self.ventricles.anatomy, self.contrast
        # Lung, with vessels where two smooth fields vanish together: a net of thin tubes.
        first = self._coarse(x, y, z * 0.55, 6.0, 11.0)
        second = self._coarse(x, y, z * 0.55, 6.0, 23.0)
        vessel: Array = np.exp(-(first * first + second * second) * 16)
        image = c.lung * (1 + 0.25 * grain)
        patch = np.clip(0.7 + 0.7 * tissue, 0.1, 1.2)
        image = image + 0.6 * vessel * patch
        # Abdomen: liver, stomach, fat between them, under the dome of the diaphragm.
        off = x - 5
        dome = a.diaphragm - a.diaphragm_slope * z
        under = dome + off * off * (1 / 480) + 1.5 * tissue - y
        liver: Array = c.liver * (1 + 0.10 * tissue + 0.05 * grain)
        liver = liver + 0.25 * vessel
        fat = c.fat * (0.92 + 0.10 * tissue + 0.06 * grain)
        sx, sy, sz, ax, ay, az = (np.float32(v) for v in a.stomach)
        bag = np.sqrt(((x - sx) / ax) ** 2 + ((y - sy) / ay) ** 2 + ((z - sz) / az) ** 2)
        bag = (bag - 1) * 20 + 1.5 * second
        # Left of the liver's edge, organs and fat share the room: level sets of one field.
        edge = 30 - x - 0.5 * z + 5 * second
        region = self._coarse(x, y, z, 10.0, 31.0) * 9
        organ = 0.27 + 0.10 * first + 0.05 * grain
        other = _over(fat, np.maximum(organ, 0.08), cover(region - 1, 1.5))
        belly = _over(other, liver, cover(3 - edge, 1.5))
        belly = _over(belly, fat, cover(bag - 3, 1.2))
        folds = 0.33 + 0.13 * first + 0.07 * grain
        belly = _over(belly, np.maximum(folds, 0.05), cover(bag, 1.0))
        belly = _over(belly, 0.10, cover(np.abs(under) - 1.0))
        image = _over(image, belly, cover(under))
        # Descending aorta and the vertebra beside it.
        px, py, gx, gy, size = (np.float32(v) for v in a.aorta)
        ex, ey = x - px - gx * z, y - py - gy * z
        # The vessel runs obliquely through the plane, so its section is an ellipse.
        tube = np.sqrt((ex * 0.95 + ey * 0.3) ** 2 + (ey * 0.42 - ex * 0.12) ** 2) - size
        bone = np.sqrt((ex - 30) ** 2 + (ey - 12) ** 2) - 22
        image = _over(image, fat * 0.5, cover(bone - 5, 2.0))
        image = _over(image, 0.34 + 0.05 * grain, cover(bone))
        image = _over(image, c.muscle, cover(tube - 1.8))
        image = _over(image, c.blood * (1 + 0.06 * tissue), cover(tube))
        return image

    def _chest_wall(self, image: Array, points: _Points) -> Array:
        """Ribs in muscle, subcutaneous fat, skin, air; in front of all else."""
        _, y, z, tissue, grain, depth = points
        a, c = self.ventricles.anatomy, self.contrast
        fat = c.fat * (0.92 + 0.10 * tissue + 0.06 * grain)
        muscle = a.chest_muscle + 1.2 * tissue
        rib = np.sin((y + 0.7 * z) * (2 * np.pi / 27))
        meat = c.skeletal * (1 + 0.25 * grain)
        meat = meat + 0.16 * cover(0.55 - rib, 0.3) * cover(
            np.abs(depth - muscle * 0.5) - muscle * 0.22
        )
        wall = _over(meat, fat, cover(muscle - depth))
        skin = depth - muscle - a.chest_fat
        wall = _over(wall, 0.35, cover(-skin))
        wall = _over(wall, 0.02, cover(2 - skin))
        return _over(image, wall, cover(-depth))

    def _heart(self, image: Array, points: _Points, s: Surfaces, beat: Beat) -> Array:
        x, y, z, tissue, grain, depth = points
        a, c = self.ventricles.anatomy, self.contrast
        above = -s.below_base
        chambers, great = self._above_base(s, z, beat, tissue)
        solid = np.maximum(s.epi, above)
        outer = np.minimum(s.epi, s.rv - a.rv_wall)
        ventricles = np.maximum(outer, above - 3)
        outer = np.maximum(outer, above - 14)
        upper = np.minimum(chambers - 1.8, great - 1.6)
        ventricles = np.minimum(ventricles, upper)
        outer = np.minimum(outer, upper)
        # Epicardial fat, thicker towards the chest wall, inside a dark pericardial line.
        nx, ny = unit(a.chest_angle)
        facing = s.cos * nx + s.sin * ny
        patch = self._coarse(x, y, z, 6.0, 5.0)
        near = np.clip(depth * (1 / 24) + 1, 0, 1)
        pad = a.fat * (0.4 + 0.55 * patch + np.maximum(facing, 0) * 1.2)
        pad = np.maximum(pad, 0.3) + 6 * near * np.maximum(facing, 0)
        fat = c.fat * (0.82 + 0.12 * tissue + 0.1 * grain)
        image = _over(image, 0.11, cover(outer - pad - 1.4))
        image = _over(image, fat, cover(outer - pad))
        # Muscle and vessel walls.
        muscle = c.muscle * (1 + 0.10 * tissue + 0.10 * grain)
        image = _over(image, muscle, cover(np.minimum(ventricles, solid)))
        # Blood, mottled by flow that returns once a beat.
        swirl = 4 * beat.contraction
        flow = self._coarse(x + swirl, y - swirl, z, 3.0, 17.0)
        flow = 1 + c.flow * flow + 0.03 * grain
        image = _over(image, c.rv_blood * flow, cover(np.minimum(chambers, great)))
        rough = c.trabeculae * self._trabeculae(s, beat)
        image = self._right(image, s, flow, rough)
        return self._left(image, s, flow, rough, muscle, beat)

    def _above_base(self, s: Surfaces, z: Array, beat: Beat, tissue: Array) -> tuple[Array, Array]:
        """Atria, and the two outflow tracts; both start just below the valve plane."""
        a = self.ventricles.anatomy
        up = beat.base - z
        swell = 1 - 0.16 * (1 - beat.contraction)
        ct, st = unit(a.rv_angle)
        out, side = s.dx * ct + s.dy * st, s.dy * ct - s.dx * st

        def blob(row: int) -> Array:
            o, t, h, ro, rt, rh = (np.float32(v) for v in a.atria[row])
            rise = np.where(up < h, np.float32(0.6), np.float32(1)) * (up - h) / rh
            ro, rt = np.float32(ro * swell), np.float32(rt * swell)
            q = np.sqrt(((out - o) / ro) ** 2 + ((side - t) / rt) ** 2 + rise * rise)
            return (q - 1) * min(ro, rt) + 1.2 * tissue

        def tube(row: int) -> Array:
            o, t, lean, radius = (np.float32(v) for v in a.great_vessels[row])
            return np.sqrt((out - o - lean * up) ** 2 + (side - t) ** 2) - radius

        left, right, root, trunk = blob(0), blob(1), tube(0), tube(1)
        chambers = np.maximum(np.minimum(left, right), -up - 1)
        great = np.maximum(np.minimum(root, trunk), -up + 2)
        # Walls keep the aortic root apart from the atria.
        apart: Array = np.maximum(chambers, 2.5 - root)
        return apart, great

    def _trabeculae(self, s: Surfaces, beat: Beat) -> Array:
        """Noise that is carried along by contraction and twist."""
        a = self.ventricles.anatomy
        angle = beat.twist * (s.level - 0.3)
        ct, st = np.cos(angle), np.sin(angle)
        shrink = a.lv_radius_ed / beat.endo_radius
        mx, my = (s.dx * ct - s.dy * st) * shrink, (s.dx * st + s.dy * ct) * shrink
        return self._fine(mx, my, s.level * (0.55 * a.lv_length_ed), 1.9, 7.0)

    def _right(self, image: Array, s: Surfaces, flow: Array, rough: Array) -> Array:
        c = self.contrast
        inside = np.maximum(np.maximum(s.rv, -s.below_base), 0.5 - s.epi)
        apical = np.clip(s.level * 1.4 - 0.2, 0, 1)
        # Ridges on the wall; towards the apex they cross the cavity.
        edge = inside + np.maximum(rough, 0) * (0.5 + apical * 1.2)
        strands = apical * cover(np.float32(0.6) * np.float32(c.trabeculae) - rough, 1.4)
        pool = c.rv_blood * flow * (1 - 0.55 * strands)
        return _over(image, pool, cover(edge, 1.0))

    def _left(
        self, image: Array, s: Surfaces, flow: Array, rough: Array, muscle: Array, beat: Beat
    ) -> Array:
        a, c = self.ventricles.anatomy, self.contrast
        apical = np.clip(s.level, 0, 1)
        nx, ny = unit(a.rv_angle)
        septal = 0.5 - 0.5 * (s.cos * nx + s.sin * ny)
        edge = s.endo + np.maximum(rough, 0) * (0.8 + 1.6 * apical) * septal
        pool = c.blood * flow * (1 - 0.10 * apical)
        image = _over(image, pool, cover(np.maximum(edge, -s.below_base - 1)))
        # Papillary muscles leave the wall near the apex and rise towards the base.
        bulk = np.float32(np.sqrt(a.lv_radius_ed / beat.endo_radius))
        turn = beat.twist * (s.level - 0.3)
        ct, st = np.cos(turn), np.sin(turn)
        profile = np.sqrt(np.maximum(1 - np.abs((s.level - a.waist) / (1 - a.waist)) ** 2, 0.02))
        wide = beat.endo_radius * profile.astype(np.float32)
        for angle, share, size, first, last in a.papillary:
            ca, sa = unit(angle)
            span = (s.level - np.float32(first)) / np.float32(last - first)
            reach = wide * (np.float32(share) + 0.25 * np.clip(span, 0, 1))
            px, py = reach * (ca * ct + sa * st), reach * (sa * ct - ca * st)
            inside = np.maximum(1 - (2 * span - 1) ** 4, -1)
            thick = np.float32(size) * bulk * np.where(inside > 0, np.sqrt(np.abs(inside)), inside)
            away = np.sqrt((s.dx - px) ** 2 + (s.dy - py) ** 2) - thick + 0.5 * rough
            part = cover(np.maximum(away, s.endo - 1), 0.9)
            image = _over(image, muscle * 1.1, part)
        return image


def _over(below: Array, colour: Array | float, share: Array) -> Array:
    """Paint ``colour`` over ``below`` with the given coverage."""
    return below + (colour - below) * share


def cover(distance: Array, width: float = 0.8) -> Array:
    """Soft coverage of a region: 1 inside, 0 outside, a smooth step in between.

    ``distance`` is signed, in mm, negative inside; ``width`` is half the edge's width in mm.
    """
    t = np.clip(0.5 - distance * np.float32(0.5 / width), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def rician(signal: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Magnitude of a complex signal with Gaussian noise of standard deviation ``sigma``."""
    real = signal + np.float32(sigma) * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = np.float32(sigma) * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(np.sqrt(real * real + imaginary * imaginary))
