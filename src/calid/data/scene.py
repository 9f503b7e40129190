"""Signal of a heart in its chest, as a short-axis balanced-SSFP film shows it.

The picture is painted from back to front: lung and abdomen, fat and pericardium, the walls of
heart and vessels, blood, what hangs in the blood, and the chest wall. Every edge is a soft step
about 1.5 mm wide, so that sampling at points hardly aliases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calid.data.texture import Array, NoiseField, cover
from calid.data.ventricles import Beat, Surfaces, Ventricles

__all__ = ["Contrast", "Scene", "draw_contrast"]


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
    coil_length: float
    """Distance from the chest wall over which the coil's gain falls by e, mm."""
    flow: float
    """Strength of the mottling of blood."""
    trabeculae: float
    """How deeply trabeculae reach into the cavities, mm."""


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


class Scene:
    """Everything that gives signal, for one anatomy and one contrast.

    Parameters
    ----------
    ventricles
        The heart's surfaces.
    contrast
        Tissue signals.
    rng
        Source of the textures.
    """

    def __init__(
        self, ventricles: Ventricles, contrast: Contrast, rng: np.random.Generator
    ) -> None:
        self.ventricles = ventricles
        self.contrast = contrast
        self._coarse = NoiseField(rng, cells=40, smoothing=1.6)
        self._fine = NoiseField(rng, cells=40, smoothing=1.2)

    def signal(self, x: Array, y: Array, z: Array, beat: Beat) -> Array:
        """Noise-free signal at points of the heart's frame.

        Parameters
        ----------
        x, y, z
            Millimetres, float32, broadcast against each other.
        beat
            Dimensions of the ventricles at the wanted phase.

        Returns
        -------
        ndarray
            float32, the broadcast shape, about 0 to 1.2.
        """
        c = self.contrast
        s = self.ventricles.surfaces(x, y, z, beat)
        tissue = self._coarse(x, y, z, 5.0)
        grain = self._fine(x, y, z, 1.6)
        wall_depth = self._chest_depth(x, y, z)
        image = self._background(x, y, z, tissue, grain)
        image = self._heart(image, x, y, z, s, beat, tissue, grain)
        image = self._chest_wall(image, y, z, wall_depth, tissue, grain)
        gain = np.exp(
            (wall_depth + np.float32(self.ventricles.anatomy.chest_distance))
            * np.float32(1 / c.coil_length)
        )
        gain *= 1 + np.float32(0.04) * tissue
        seen: Array = np.maximum(image * np.minimum(gain, np.float32(1.3)), np.float32(0))
        return seen

    def _chest_depth(self, x: Array, y: Array, z: Array) -> Array:
        """Millimetres outwards from the inner chest wall; negative in the chest."""
        a = self.ventricles.anatomy
        nx, ny = np.float32(np.cos(a.chest_angle)), np.float32(np.sin(a.chest_angle))
        across = y * nx - x * ny
        inner = np.float32(a.chest_distance) - np.float32(a.chest_slope) * z
        depth: Array = x * nx + y * ny - inner + across * across * np.float32(1 / 420)
        return depth

    def _background(self, x: Array, y: Array, z: Array, tissue: Array, grain: Array) -> Array:
        a, c = self.ventricles.anatomy, self.contrast
        # Lung, with vessels where two smooth fields vanish together: a net of thin tubes.
        first = self._coarse(x, y, z * np.float32(0.55), 6.0, 11.0)
        second = self._coarse(x, y, z * np.float32(0.55), 6.0, 23.0)
        vessel: Array = np.exp(-(first * first + second * second) * np.float32(16))
        image = np.float32(c.lung) * (1 + np.float32(0.25) * grain)
        patch = np.clip(
            np.float32(0.7) + np.float32(0.7) * tissue, np.float32(0.1), np.float32(1.2)
        )
        image = image + np.float32(0.6) * vessel * patch
        # Abdomen: liver, stomach, fat between them, under the dome of the diaphragm.
        off = x - np.float32(5)
        dome = np.float32(a.diaphragm) - np.float32(a.diaphragm_slope) * z
        under = dome + off * off * np.float32(1 / 480) + np.float32(1.5) * tissue - y
        liver: Array = np.float32(c.liver) * (
            1 + np.float32(0.10) * tissue + np.float32(0.05) * grain
        )
        liver = liver + np.float32(0.25) * vessel
        fat = np.float32(c.fat) * (
            np.float32(0.92) + np.float32(0.10) * tissue + np.float32(0.06) * grain
        )
        sx, sy, sz, ax, ay, az = (np.float32(v) for v in a.stomach)
        bag = np.sqrt(((x - sx) / ax) ** 2 + ((y - sy) / ay) ** 2 + ((z - sz) / az) ** 2)
        bag = (bag - 1) * np.float32(20) + np.float32(1.5) * second
        # Left of the liver's edge, organs and fat share the room: level sets of one field.
        edge = np.float32(30) - x - np.float32(0.5) * z + np.float32(5) * second
        region = self._coarse(x, y, z, 10.0, 31.0) * np.float32(9)
        organ = np.float32(0.27) + np.float32(0.10) * first + np.float32(0.05) * grain
        other = _over(fat, np.maximum(organ, np.float32(0.08)), cover(region - np.float32(1), 1.5))
        belly = _over(other, liver, cover(np.float32(3) - edge, 1.5))
        belly = _over(belly, fat, cover(bag - np.float32(3), 1.2))
        folds = np.float32(0.33) + np.float32(0.13) * first + np.float32(0.07) * grain
        belly = _over(belly, np.maximum(folds, np.float32(0.05)), cover(bag, 1.0))
        belly = _over(belly, np.float32(0.10), cover(np.abs(under) - np.float32(1.0)))
        image = _over(image, belly, cover(under))
        # Descending aorta and the vertebra beside it.
        px, py, gx, gy, size = (np.float32(v) for v in a.aorta)
        ex, ey = x - px - gx * z, y - py - gy * z
        # The vessel runs obliquely through the plane, so its section is an ellipse.
        tube = (
            np.sqrt(
                (ex * np.float32(0.95) + ey * np.float32(0.3)) ** 2
                + (ey * np.float32(0.42) - ex * np.float32(0.12)) ** 2
            )
            - size
        )
        bone = np.sqrt((ex - 30) ** 2 + (ey - 12) ** 2) - np.float32(22)
        image = _over(image, fat * np.float32(0.5), cover(bone - np.float32(5), 2.0))
        image = _over(image, np.float32(0.34) + np.float32(0.05) * grain, cover(bone))
        image = _over(image, np.float32(c.muscle), cover(tube - np.float32(1.8)))
        image = _over(image, np.float32(c.blood) * (1 + np.float32(0.06) * tissue), cover(tube))
        return image

    def _chest_wall(
        self, image: Array, y: Array, z: Array, depth: Array, tissue: Array, grain: Array
    ) -> Array:
        """Ribs in muscle, subcutaneous fat, skin, air; in front of all else."""
        a, c = self.ventricles.anatomy, self.contrast
        fat = np.float32(c.fat) * (
            np.float32(0.92) + np.float32(0.10) * tissue + np.float32(0.06) * grain
        )
        muscle = np.float32(a.chest_muscle) + np.float32(1.2) * tissue
        rib = np.sin((y + np.float32(0.7) * z) * np.float32(2 * np.pi / 27))
        meat = np.float32(c.skeletal) * (1 + np.float32(0.25) * grain)
        meat = meat + np.float32(0.16) * cover(np.float32(0.55) - rib, 0.3) * cover(
            np.abs(depth - muscle * np.float32(0.5)) - muscle * np.float32(0.22)
        )
        wall = _over(meat, fat, cover(muscle - depth))
        skin = depth - muscle - np.float32(a.chest_fat)
        wall = _over(wall, np.float32(0.35), cover(-skin))
        wall = _over(wall, np.float32(0.02), cover(np.float32(2) - skin))
        return _over(image, wall, cover(-depth))

    def _heart(
        self,
        image: Array,
        x: Array,
        y: Array,
        z: Array,
        s: Surfaces,
        beat: Beat,
        tissue: Array,
        grain: Array,
    ) -> Array:
        a, c = self.ventricles.anatomy, self.contrast
        above = -s.below_base
        chambers, great = self._above_base(s, z, beat, tissue)
        solid = np.maximum(s.epi, above)
        right = np.maximum(s.rv, above)
        outer = np.minimum(s.epi, s.rv - np.float32(a.rv_wall))
        ventricles = np.maximum(outer, above - np.float32(3))
        outer = np.maximum(outer, above - np.float32(14))
        upper = np.minimum(chambers - np.float32(1.8), great - np.float32(1.6))
        ventricles = np.minimum(ventricles, upper)
        outer = np.minimum(outer, upper)
        # Epicardial fat, thicker towards the chest wall, inside a dark pericardial line.
        facing = s.cos * np.float32(np.cos(a.chest_angle)) + s.sin * np.float32(
            np.sin(a.chest_angle)
        )
        patch = self._coarse(x, y, z, 6.0, 5.0)
        near = np.clip(self._chest_depth(x, y, z) * np.float32(1 / 24) + 1, 0, 1)
        pad = np.float32(a.fat) * (
            np.float32(0.4) + np.float32(0.55) * patch + np.maximum(facing, 0) * np.float32(1.2)
        )
        pad = np.maximum(pad, np.float32(0.3)) + np.float32(6) * near * np.maximum(facing, 0)
        fat = np.float32(c.fat) * (
            np.float32(0.82) + np.float32(0.12) * tissue + np.float32(0.1) * grain
        )
        image = _over(image, np.float32(0.11), cover(outer - pad - np.float32(1.4)))
        image = _over(image, fat, cover(outer - pad))
        # Muscle and vessel walls.
        muscle = np.float32(c.muscle) * (1 + np.float32(0.10) * tissue + np.float32(0.10) * grain)
        image = _over(image, muscle, cover(np.minimum(ventricles, solid)))
        # Blood, mottled by flow that returns once a beat.
        swirl = np.float32(4 * beat.contraction)
        flow = self._coarse(x + swirl, y - swirl, z, 3.0, 17.0)
        flow = 1 + np.float32(c.flow) * flow + np.float32(0.03) * grain
        image = _over(image, np.float32(c.rv_blood) * flow, cover(np.minimum(chambers, great)))
        trabeculae = self._trabeculae(s, beat)
        rough = np.float32(c.trabeculae) * trabeculae
        image = self._right(image, s, right, flow, rough)
        return self._left(image, s, above, flow, rough, muscle, beat)

    def _above_base(self, s: Surfaces, z: Array, beat: Beat, tissue: Array) -> tuple[Array, Array]:
        """Atria, and the two outflow tracts; both start just below the valve plane."""
        a = self.ventricles.anatomy
        up = np.float32(beat.base) - z
        swell = 1 - 0.16 * (1 - beat.contraction)
        ct, st = np.float32(np.cos(a.rv_angle)), np.float32(np.sin(a.rv_angle))
        out, side = s.dx * ct + s.dy * st, s.dy * ct - s.dx * st

        def blob(row: int) -> Array:
            o, t, h, ro, rt, rh = (np.float32(v) for v in a.atria[row])
            rise = np.where(up < h, np.float32(0.6), np.float32(1)) * (up - h) / rh
            ro, rt = np.float32(ro * swell), np.float32(rt * swell)
            q = np.sqrt(((out - o) / ro) ** 2 + ((side - t) / rt) ** 2 + rise * rise)
            distance: Array = (q - 1) * min(ro, rt) + np.float32(1.2) * tissue
            return distance

        def tube(row: int) -> Array:
            o, t, lean, radius = (np.float32(v) for v in a.great_vessels[row])
            distance: Array = np.sqrt((out - o - lean * up) ** 2 + (side - t) ** 2) - radius
            return distance

        left, right, root, trunk = blob(0), blob(1), tube(0), tube(1)
        chambers = np.maximum(np.minimum(left, right), -up - np.float32(1))
        great = np.maximum(np.minimum(root, trunk), -up + np.float32(2))
        # Walls keep the aortic root apart from the atria.
        apart: Array = np.maximum(chambers, np.float32(2.5) - root)
        return apart, great

    def _trabeculae(self, s: Surfaces, beat: Beat) -> Array:
        """Noise that is carried along by contraction and twist."""
        a = self.ventricles.anatomy
        angle = np.float32(beat.twist) * (s.level - np.float32(0.3))
        ct, st = np.cos(angle), np.sin(angle)
        shrink = np.float32(a.lv_radius_ed / beat.endo_radius)
        mx, my = (s.dx * ct - s.dy * st) * shrink, (s.dx * st + s.dy * ct) * shrink
        return self._fine(mx, my, s.level * np.float32(0.55 * a.lv_length_ed) + mx * 0, 1.9, 7.0)

    def _right(self, image: Array, s: Surfaces, cavity: Array, flow: Array, rough: Array) -> Array:
        c = self.contrast
        inside = np.maximum(cavity, np.float32(0.5) - s.epi)
        apical = np.clip(s.level * np.float32(1.4) - np.float32(0.2), 0, 1)
        # Ridges on the wall; towards the apex they cross the cavity.
        edge = inside + np.maximum(rough, 0) * (np.float32(0.5) + apical * np.float32(1.2))
        strands = apical * cover(np.float32(0.6) * np.float32(c.trabeculae) - rough, 1.4)
        pool = np.float32(c.rv_blood) * flow * (1 - np.float32(0.55) * strands)
        return _over(image, pool, cover(edge, 1.0))

    def _left(
        self,
        image: Array,
        s: Surfaces,
        above: Array,
        flow: Array,
        rough: Array,
        muscle: Array,
        beat: Beat,
    ) -> Array:
        a, c = self.ventricles.anatomy, self.contrast
        apical = np.clip(s.level, 0, 1)
        septal = np.float32(0.5) - np.float32(0.5) * (
            s.cos * np.float32(np.cos(a.rv_angle)) + s.sin * np.float32(np.sin(a.rv_angle))
        )
        edge = s.endo + np.maximum(rough, 0) * (np.float32(0.8) + np.float32(1.6) * apical) * septal
        pool = np.float32(c.blood) * flow * (1 - np.float32(0.10) * apical)
        image = _over(image, pool, cover(np.maximum(edge, above - np.float32(1))))
        # Papillary muscles leave the wall near the apex and rise towards the base.
        bulk = np.float32(np.sqrt(a.lv_radius_ed / beat.endo_radius))
        turn = np.float32(beat.twist) * (s.level - np.float32(0.3))
        ct, st = np.cos(turn), np.sin(turn)
        profile = np.sqrt(np.maximum(1 - np.abs((s.level - a.waist) / (1 - a.waist)) ** 2, 0.02))
        wide = np.float32(beat.endo_radius) * profile.astype(np.float32)
        for angle, share, size, first, last in a.papillary:
            ca, sa = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            span = (s.level - np.float32(first)) / np.float32(last - first)
            reach = wide * (np.float32(share) + np.float32(0.25) * np.clip(span, 0, 1))
            px, py = reach * (ca * ct + sa * st), reach * (sa * ct - ca * st)
            inside = np.maximum(1 - (2 * span - 1) ** 4, -1)
            thick = np.float32(size) * bulk * np.where(inside > 0, np.sqrt(np.abs(inside)), inside)
            away = np.sqrt((s.dx - px) ** 2 + (s.dy - py) ** 2) - thick + np.float32(0.5) * rough
            part = cover(np.maximum(away, s.endo - np.float32(1)), 0.9)
            image = _over(image, muscle * np.float32(1.1), part)
        return image


def _over(below: Array, colour: Array | np.float32, share: Array) -> Array:
    """Paint ``colour`` over ``below`` with the given coverage."""
    painted: Array = below + (colour - below) * share
    return painted
