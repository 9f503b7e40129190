"""One random person: the numbers of the phantom's heart and chest, and the cardiac cycle.

Lengths are millimetres, angles radians, in an image frame with x to the right, y downwards
and z along the long axis from base to apex, 0 at the basal plane at end-diastole.
Ranges follow adult short-axis cine studies (end-diastolic wall 6-18 mm, cavity radius
21-36 mm, ejection fraction 20-75 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

__all__ = ["Anatomy", "contraction", "draw_anatomy"]

# Share of the end-systolic shape along the cycle when systole ends at phase 0.36: ejection,
# rapid filling, diastasis, atrial kick.
_CYCLE_PHASE = (0.0, 0.06, 0.20, 0.36, 0.42, 0.55, 0.68, 0.86, 0.94, 1.0)
_CYCLE_SHARE = (0.0, 0.06, 0.70, 1.00, 0.94, 0.36, 0.20, 0.16, 0.03, 0.0)
_END_SYSTOLE = 0.36


@dataclass(frozen=True)
class Anatomy:
    """Parameters of one phantom, drawn by `draw_anatomy`; millimetres and radians.

    Suffix ``_ed`` is end-diastole; what has no suffix does not change over the cycle.
    """

    pathology: str  # "normal", "dilated" or "hypertrophic"
    period: float  # heart period in seconds
    end_systole: float  # phase of end-systole, in (0, 1)
    ejection_fraction: float  # of the left ventricle, in (0, 1); its end-systolic radius follows
    rotation: float  # turn of heart and chest together in the image plane
    centre: tuple[float, float]  # left-ventricular axis at z = 0
    tilt: tuple[float, float]  # drift of the axis in x and y from base to apex, mm
    bend: tuple[float, float]  # quadratic part of that drift, mm
    base_slope: float  # tilt of the valve plane, mm per mm
    base_angle: float  # direction in which the valve plane sinks towards the apex
    lv_radius_ed: float  # endocardial radius at its widest
    wall_ed: float  # wall thickness at the widest level
    lv_length_ed: float  # valve plane to endocardial apex
    apex_wall: float  # thickness of the apical cap
    taper: float  # exponent of the long-axis profile: 2 is an ellipsoid, larger is blunter
    waist: float  # where the cavity is widest, as a share of its length below the valve plane
    # Shape (2, 2): amplitude and angle of the 2nd and 3rd angular harmonic of the endocardium
    endo_waves: NDArray[np.float64]
    epi_waves: NDArray[np.float64]  # the same for the epicardium
    septal_bulge: float  # extra septal thickness as a share of the epicardial radius (hypertrophy)
    shortening: float  # share of the length that is lost by end-systole
    twist: float  # apical rotation against the base at end-systole
    rv_angle: float  # direction from the left to the right ventricle at the base
    rv_spiral: float  # change of that direction from base to apex
    rv_depth_ed: float  # septum to free wall at the base
    rv_depth_es: float  # the same at end-systole
    rv_offset: float  # centre of the right-ventricular ellipse / its radial half-axis, < 1
    rv_aspect: float  # tangential over radial half-axis
    rv_reach: float  # length as a share of the left ventricle's
    rv_taper: float  # exponent of its long-axis profile
    rv_wave: tuple[float, float]  # amplitude and angle of the third harmonic of its outline
    rv_wall: float  # thickness of the free wall
    # Shape (2, 6), left then right: place towards the right ventricle, across, and height above
    # the valve plane; half-axes in the same order, mm
    atria: NDArray[np.float64]
    # Shape (2, 4), aortic root then pulmonary trunk: place towards the right ventricle and
    # across, drift of the first per mm of height, radius, mm
    great_vessels: NDArray[np.float64]
    # Shape (heads, 5): angle, radial share, radius mm, first and last level as shares
    papillary: NDArray[np.float64]
    fat: float  # typical epicardial fat thickness, mm
    chest_distance: float  # from image centre to the inner chest wall at z = 0
    chest_slope: float  # how fast the chest wall comes nearer along z, mm per mm
    chest_angle: float  # direction of the chest wall
    chest_muscle: float  # thickness of ribs and muscle
    chest_fat: float  # thickness of the subcutaneous fat
    diaphragm: float  # height (y) of the diaphragm at z = 0
    diaphragm_slope: float  # how fast the diaphragm rises along z, mm per mm
    stomach: NDArray[np.float64]  # centre (x, y, z) and half-axes of the stomach
    aorta: NDArray[np.float64]  # descending: x, y at z = 0, their drift per mm of z, radius


def contraction(anatomy: Anatomy, phase: float) -> float:
    """Share of the end-systolic shape: 0 at end-diastole, 1 at ``anatomy.end_systole``.

    ``phase`` counts cycles from end-diastole; any real number, periodic with 1.
    """
    knots = np.array(_CYCLE_PHASE)
    late = knots > _END_SYSTOLE
    knots[~late] *= anatomy.end_systole / _END_SYSTOLE
    knots[late] = 1 - (1 - knots[late]) * (1 - anatomy.end_systole) / (1 - _END_SYSTOLE)
    return float(PchipInterpolator(knots, _CYCLE_SHARE)(phase % 1.0))


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a person: 55 % normal, 25 % dilated and thin-walled, 20 % hypertrophic hearts."""
    u = rng.uniform
    pathology = str(rng.choice(["normal", "dilated", "hypertrophic"], p=[0.55, 0.25, 0.20]))
    if pathology == "dilated":
        radius, wall, length = u(31, 37), u(6.0, 8.5), u(84, 98)
        fraction = u(0.21, 0.42)
    elif pathology == "hypertrophic":
        radius, wall, length = u(21, 25), u(12, 16), u(70, 84)
        fraction = u(0.58, 0.74)
    else:
        radius, wall, length = u(24, 29.5), u(7.5, 10.5), u(74, 88)
        fraction = u(0.50, 0.68)
    # Most planes look alike; some scanners turn the image towards an axial view.
    rotation = u(0.6, 1.1) if rng.random() < 0.2 else rng.normal(0, 0.12)
    rv_angle = np.deg2rad(rng.normal(150, 7))
    rv_depth = u(19, 34)
    waves = [[u(0.01, 0.05), u(0, 2 * np.pi)], [u(0.005, 0.02), u(0, 2 * np.pi)]]
    epi_waves = np.array(waves) * [0.6, 1] + [[0, u(-0.2, 0.2)]] * 2
    centre = (u(10, 18), u(-12, -4))
    chest_slope = u(0.08, 0.30)
    # The chest wall starts where the right ventricle leaves room for it.
    front = 1.06 * (radius + wall) + rv_depth - centre[0]
    return Anatomy(
        pathology=pathology,
        period=u(0.8, 1.1),
        end_systole=u(0.32, 0.40),
        ejection_fraction=fraction,
        rotation=float(rotation),
        centre=centre,
        tilt=(u(-8, 8), u(-3, 9)),
        bend=(u(-5, 5), u(-5, 5)),
        base_slope=u(0.08, 0.24),
        base_angle=rv_angle + np.pi + u(-0.7, 0.7),
        lv_radius_ed=radius,
        wall_ed=wall,
        lv_length_ed=length,
        apex_wall=u(4.0, 6.5) * (1.4 if pathology == "hypertrophic" else 1.0),
        taper=u(2.0, 2.7),
        waist=u(0.12, 0.26),
        endo_waves=np.array(waves),
        epi_waves=epi_waves,
        septal_bulge=u(0.06, 0.16) if pathology == "hypertrophic" else u(-0.015, 0.015),
        shortening=float(0.24 * fraction + u(0.0, 0.03)),
        twist=float(np.deg2rad(u(10, 22)) * fraction / 0.6),
        rv_angle=float(rv_angle),
        rv_spiral=u(-0.35, 0.15),
        rv_depth_ed=rv_depth,
        rv_depth_es=rv_depth * (1 - u(0.5, 0.7) * fraction),
        rv_offset=u(0.70, 0.82),
        rv_aspect=u(1.0, 1.2),
        rv_reach=u(0.86, 0.97),
        rv_taper=u(1.35, 1.8),
        rv_wave=(u(0.02, 0.10), u(0, 2 * np.pi)),
        rv_wall=u(1.6, 2.6),
        atria=np.array(
            [
                [u(-8, -2), u(-9, -3), u(15, 23), u(22, 29), u(19, 26), u(18, 25)],
                [u(36, 46), u(-20, -9), u(13, 20), u(22, 30), u(20, 27), u(16, 23)],
            ]
        ),
        great_vessels=np.array(
            [
                [u(15, 19), u(6, 10), u(0.1, 0.4), u(11, 14.5)],
                [u(30, 38), u(28, 36), u(-0.7, -0.4), u(10.5, 14)],
            ]
        ),
        papillary=_draw_papillary(rng, float(rv_angle)),
        fat=u(1.2, 4.5),
        chest_distance=front + u(7, 15),
        chest_slope=chest_slope,
        chest_angle=float(np.deg2rad(u(180, 196))),
        chest_muscle=u(9, 16),
        chest_fat=u(8, 24),
        diaphragm=centre[1] + radius + wall + u(1, 9),
        diaphragm_slope=u(0.02, 0.22),
        stomach=np.array([u(20, 60), u(62, 76), u(50, 85), u(26, 42), u(16, 26), u(25, 45)]),
        aorta=np.array([u(58, 72), u(52, 66), u(-0.35, -0.1), u(0.35, 0.75), u(9, 12)]),
    )


def _draw_papillary(rng: np.random.Generator, rv_angle: float) -> NDArray[np.float64]:
    """Two groups of one to three heads on the free wall, opposite the septum."""
    rows = []
    for side in (-1.0, 1.0):
        angle = rv_angle + np.pi + side * np.deg2rad(rng.uniform(42, 66))
        for head in range(int(rng.integers(1, 4))):
            spread = np.deg2rad(rng.uniform(-20, 20)) * (head > 0)
            size = rng.uniform(3.4, 5.2) if head == 0 else rng.uniform(1.8, 3.2)
            share = rng.uniform(0.60, 0.76)
            rows.append(
                [angle + spread, share, size, rng.uniform(0.16, 0.34), rng.uniform(0.7, 0.85)]
            )
    return np.array(rows)
