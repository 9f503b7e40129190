"""A beating heart with known truth: continuous in space and time, random by seed.

Coordinates are millimetres in the image frame: x to the right, y downwards, both 0 in the
middle of the field of view; z along the long axis from base to apex, 0 at the valve plane at
end-diastole. In the affine x is the patient's left, y posterior and z the step between
slices, as in ACDC's files: ``diag(-spacing, -spacing, gap)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calid.data.anatomy import Anatomy, draw_anatomy
from calid.data.scene import Scene, draw_contrast, rician
from calid.data.ventricles import Array, Beat, Ventricles, VentricleVolumes, unit
from calid.errors import GeometryError, UsageError
from calid.stack import SliceStack, Volume

__all__ = ["FIRST_HELD_OUT", "HeartPhantom", "slice_profile"]

FIRST_HELD_OUT = 1000
"""Hearts of this seed and above are for evaluation; networks are trained on those below."""

_SUB_PLANES = 7
_FIRST_PLANE = -6.0  # mm, just above the valve


class HeartPhantom:
    """One random heart in its chest.

    Parameters
    ----------
    seed
        Chooses anatomy, motion, contrast, textures and noise. The same seed gives the same
        arrays, whatever was asked before.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        anatomy_rng, contrast_rng, texture_rng = (
            np.random.default_rng([seed, stream]) for stream in range(3)
        )
        self.anatomy: Anatomy = draw_anatomy(anatomy_rng)
        self._ventricles = Ventricles(self.anatomy)
        self._scene = Scene(self._ventricles, draw_contrast(contrast_rng), texture_rng)
        self.scale = float(contrast_rng.uniform(230, 380))

    @property
    def apex(self) -> float:
        """Z of the epicardial apex in mm."""
        return self._ventricles.apex

    @property
    def end_systole(self) -> float:
        """Phase of the smallest left ventricle, in (0, 1)."""
        return self.anatomy.end_systole

    @property
    def period(self) -> float:
        """Heart period in seconds."""
        return self.anatomy.period

    @property
    def ejection_fraction(self) -> float:
        """Left-ventricular ejection fraction, in (0, 1), from `volumes`."""
        full, rest = self.volumes((0.0, self.end_systole)).lv
        return float(1 - rest / full)

    def volumes(self, phases: Sequence[float]) -> VentricleVolumes:
        """Integrate the true volumes, in millilitres.

        Parameters
        ----------
        phases
            Cycles, periodic with 1.

        Returns
        -------
        VentricleVolumes
            ``lv``, ``rv`` (cavities) and ``myocardium``, each of shape ``(phases,)``; polar
            quadrature of the surfaces of `label`, error below 0.5 %.
        """
        return self._ventricles.volumes(tuple(phases))

    def intensity(
        self, x: ArrayLike, y: ArrayLike, z: ArrayLike, phase: ArrayLike = 0.0
    ) -> NDArray[np.float32]:
        """Noise-free signal, coil shading included.

        Parameters
        ----------
        x, y, z
            Millimetres; broadcast against each other and against ``phase``.
        phase
            Cycles, periodic with 1.

        Returns
        -------
        ndarray
            float32, about 0 to 1.2; times `scale` it is the stored value.
        """
        values = self._evaluate(self._scene.signal, x, y, z, phase)
        return np.asarray(values, np.float32)

    def label(
        self, x: ArrayLike, y: ArrayLike, z: ArrayLike, phase: ArrayLike = 0.0
    ) -> NDArray[np.uint8]:
        """Tissue class at points, with ACDC's numbers.

        Parameters
        ----------
        x, y, z, phase
            As in `intensity`.

        Returns
        -------
        ndarray
            uint8: 0 background, 1 right-ventricular cavity, 2 left-ventricular myocardium,
            3 left-ventricular cavity with its papillary muscles.
        """
        return np.asarray(self._evaluate(self._label, x, y, z, phase), np.uint8)

    def dense(
        self,
        spacing: float = 1.5,
        field_of_view: float = 192.0,
        depth: float | None = None,
        phases: Sequence[float] = (0.0,),
        start: float | None = None,
    ) -> Volume:
        """Isotropic truth: the signal at points, without noise.

        Parameters
        ----------
        spacing
            Voxel size in mm, > 0, the same along all axes.
        field_of_view
            Edge of the square image in mm.
        depth
            Distance in mm from the first to the last plane; by default to just past the apex.
        phases
            Cycles, one frame each.
        start
            Z of the first plane in mm; by default that of `acquire`, so that positions of
            both are on the same axis.

        Returns
        -------
        Volume
            int16, shape ``(phases, depth / spacing + 1, n, n)``; no slice is acquired.
        """
        first = _FIRST_PLANE if start is None else start
        reach = self._last_plane - first if depth is None else depth
        if not reach >= 0:
            raise GeometryError("depth", f"{reach} mm is negative.", "Give a depth >= 0.")
        side = _grid(spacing, field_of_view)
        count = int(np.floor(reach / spacing + 1e-6)) + 1
        positions = np.arange(count, dtype=np.float64) * np.float64(spacing)
        data = self._film(side, first + positions, 0.0, np.zeros((count, 2)), phases)
        return Volume(
            data=self._stored(data),
            affine=_affine(side, spacing, first, spacing),
            positions=positions,
            acquired=np.zeros(count, np.bool_),
            frame_times=np.asarray(phases, np.float64) * self.period,
            rank=4 if len(phases) > 1 else 3,
        )

    def acquire(
        self,
        gap: float = 10.0,
        thickness: float = 8.0,
        spacing: float = 1.5,
        field_of_view: float = 192.0,
        slices: int | None = None,
        phases: Sequence[float] = (0.0,),
        noise: float = 0.02,
        breath_hold_shift: float = 0.0,
        start: float | None = None,
    ) -> SliceStack:
        """Scan the heart: thick slices with gaps, noise and breath-hold shifts.

        Parameters
        ----------
        gap
            Distance between slice centres in mm, > 0.
        thickness
            Full width at half maximum of the slice profile in mm, >= 0; 0 samples the centre.
            See `slice_profile`.
        spacing
            Pixel size in mm, > 0.
        field_of_view
            Edge of the square image in mm.
        slices
            How many, >= 2; by default from just above the valve to just past the apex.
        phases
            Cycles, one frame each.
        noise
            Standard deviation of each channel of the Rician noise; 1 is the brightest tissue.
        breath_hold_shift
            Standard deviation in mm, along x and along y, of a random shift of each slice,
            the same in all its frames.
        start
            Z of the first slice in mm.

        Returns
        -------
        SliceStack
            int16, shape ``(phases, slices, n, n)``.
        """
        if not gap > 0 or not thickness >= 0:
            raise UsageError(
                "phantom", "A gap must be > 0 and a thickness >= 0.", "Give both in millimetres."
            )
        first = _FIRST_PLANE if start is None else start
        count = slices or int(np.floor((self._last_plane - first) / gap + 1e-6)) + 1
        side = _grid(spacing, field_of_view)
        positions = np.arange(count, dtype=np.float64) * np.float64(gap)
        shifts = np.random.default_rng([self.seed, 4]).standard_normal((count, 2))
        data = self._film(side, first + positions, thickness, shifts * breath_hold_shift, phases)
        if noise > 0:
            data = rician(data, noise, np.random.default_rng([self.seed, 3]))
        return SliceStack(
            data=self._stored(data),
            affine=_affine(side, spacing, first, gap),
            positions=positions,
            thickness=float(thickness),
            frame_times=np.asarray(phases, np.float64) * self.period,
            rank=4 if len(phases) > 1 else 3,
            source=f"phantom {self.seed}",
        )

    @property
    def _last_plane(self) -> float:
        return self.apex + 3.0

    def _stored(self, signal: NDArray[np.float32]) -> NDArray[np.int16]:
        return np.asarray(np.rint(signal * self.scale).astype(np.int16))

    def _film(
        self,
        side: Array,
        heights: NDArray[np.float64],
        thickness: float,
        shifts: NDArray[np.float64],
        phases: Sequence[float],
    ) -> NDArray[np.float32]:
        """Signal ``(phases, heights, n, n)`` of slices that are shifted along x and y, in mm."""
        data = np.zeros((len(phases), len(heights), side.size, side.size), np.float32)
        profile = [*zip(*(part.tolist() for part in slice_profile(thickness)), strict=True)]
        for frame, phase in zip(data, phases, strict=True):
            beat = self._ventricles.beat(float(phase))
            for image, z, (dx, dy) in zip(frame, heights.tolist(), shifts.tolist(), strict=True):
                x, y = self._turn(side[None, :] - dx, side[:, None] - dy)
                for offset, weight in profile:
                    plane = np.full((1, 1), z + offset, np.float32)
                    image += weight * self._scene.signal(x, y, plane, beat)
        return data

    def _label(self, x: Array, y: Array, z: Array, beat: Beat) -> NDArray[np.uint8]:
        s = self._ventricles.surfaces(x, y, z, beat)
        ventricle = s.below_base > 0
        label = np.where((s.rv < 0) & ventricle, 1, 0)
        label = np.where((s.epi < 0) & ventricle, 2, label)
        return np.where((s.endo < 0) & ventricle, 3, label).astype(np.uint8)

    def _turn(self, x: Array, y: Array) -> tuple[Array, Array]:
        """From the image frame to the heart's frame, which the scanner sees rotated."""
        c, s = unit(self.anatomy.rotation)
        return x * c + y * s, y * c - x * s

    def _evaluate(
        self,
        function: Callable[..., Array | NDArray[np.uint8]],
        x: ArrayLike,
        y: ArrayLike,
        z: ArrayLike,
        phase: ArrayLike,
    ) -> NDArray[np.generic]:
        px, py, pz = (np.atleast_1d(np.asarray(v, np.float32)) for v in (x, y, z))
        times = np.asarray(phase, np.float64)
        shape = np.broadcast_shapes(*(np.shape(v) for v in (x, y, z, phase)))
        hx, hy = self._turn(px, py)
        if times.size == 1:
            values = function(hx, hy, pz, self._ventricles.beat(times.item()))
            return np.array(np.broadcast_to(values, shape or (1,))).reshape(shape)
        points = [np.broadcast_to(v, shape) for v in (hx, hy, pz)]
        times = np.broadcast_to(times, shape)
        result: NDArray[np.generic] | None = None
        for time in np.unique(times):
            here = times == time
            values = function(*(v[here] for v in points), self._ventricles.beat(float(time)))
            if result is None:
                result = np.zeros(shape, values.dtype)
            result[here] = values
        return np.zeros(shape) if result is None else result


def slice_profile(thickness: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Trapezoidal slice profile, sampled.

    Flat over the middle three quarters, linear flanks that reach zero at 125 % of the
    thickness, so that its full width at half maximum is the thickness.

    Parameters
    ----------
    thickness
        Millimetres, >= 0; 0 is a single plane.

    Returns
    -------
    offsets, weights
        Shape ``(7,)`` (or ``(1,)``): mm from the slice's centre, and shares that add up to 1.
    """
    if thickness == 0:
        return np.zeros(1), np.ones(1)
    step = 1.25 * thickness / _SUB_PLANES
    middle = (_SUB_PLANES - 1) / 2
    offsets = np.array([(k - middle) * step for k in range(_SUB_PLANES)])
    weights: NDArray[np.float64] = np.clip(
        (0.625 * thickness - np.abs(offsets)) / (0.25 * thickness), 0, 1
    )
    return offsets, weights / weights.sum()


def _grid(spacing: float, field_of_view: float) -> Array:
    """Pixel centres along one edge in mm, symmetric about 0."""
    if not 0 < spacing <= field_of_view:
        raise GeometryError(
            "phantom",
            f"A spacing of {spacing} mm does not fit a field of view of {field_of_view} mm.",
            "Give a spacing > 0 that is smaller than the field of view.",
        )
    count = round(field_of_view / spacing)
    return ((np.arange(count) - (count - 1) / 2) * spacing).astype(np.float32)


def _affine(side: Array, spacing: float, first: float, step: float) -> NDArray[np.float64]:
    affine = np.diag([-float(spacing), -float(spacing), float(step), 1.0])
    affine[:3, 3] = [-float(side[0]), -float(side[0]), first]
    return affine
