"""Augmentation: every slice of a stack goes through the same random transform.

Random numbers are a pure function of seed and step, so that a resumed run draws the same ones.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from calid.data.intensity import CEILING

__all__ = ["augment_intensity", "crop", "random_crop", "random_pose", "seeded", "uniform"]

ZOOMED, ZOOM = 0.3, 1.3
"""Share of the random crops that are resampled, and by how much they are zoomed at most."""


def seeded(*keys: int) -> Generator:
    """CPU generator whose stream depends on all keys (seed, step, rank, purpose)."""
    state = np.random.SeedSequence(keys).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def uniform(low: float, high: float, generator: Generator) -> float:
    """One number from ``[low, high)``, drawn on the generator."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def random_pose(generator: Generator, shift: float, zoom: float = 1.25) -> Tensor:
    """Similarity transform, shape ``(2, 3)``, in pixels about the image centre.

    Any rotation, a reflection half of the time, zoom in ``[1/zoom, zoom]`` and a shift of at
    most ``shift`` pixels. Maps output pixels to input pixels.
    """
    angle = uniform(-math.pi, math.pi, generator)
    scale = zoom ** uniform(-1, 1, generator)
    mirror = 1.0 if uniform(0, 1, generator) < 0.5 else -1.0
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    dx, dy = uniform(-shift, shift, generator), uniform(-shift, shift, generator)
    return torch.tensor([[c * mirror, -s, dx], [s * mirror, c, dy]])


def crop(images: Tensor, size: int, pose: Tensor, mode: str = "bilinear") -> Tensor:
    """Cut a posed square out of images ``(slices, height, width)`` in one resampling.

    The pose is from `random_pose`; the identity gives the centre crop. Mode ``bicubic`` keeps more
    detail than ``bilinear`` and overshoots. Beyond the edge the image is mirrored.
    """
    height, width = images.shape[-2:]
    # grid_sample counts from -1 to 1 over the input; poses count pixels.
    to_unit = torch.tensor([2.0 / width, 2.0 / height])[:, None]
    theta = pose * to_unit * torch.tensor([size / 2, size / 2, 1.0])
    grid = F.affine_grid(theta[None].to(images), [1, 1, size, size], align_corners=False)
    return F.grid_sample(
        images[None], grid, mode=mode, padding_mode="reflection", align_corners=False
    )[0]


def random_crop(images: Tensor, size: int, generator: Generator) -> Tensor:
    """Cut the same random square from all ``images`` ``(slices, height, width)``, window units.

    Most crops are only shifted by whole pixels, mirrored and turned by right angles: resampling
    would remove the finest detail, which networks that see real pixels must know. Images smaller
    than the square are mirrored at their edges.
    """
    spare = [max(0, n - size) for n in images.shape[-2:]]
    if uniform(0, 1, generator) < ZOOMED:
        pose = random_pose(generator, shift=min(spare) / 2, zoom=ZOOM)
        return crop(images, size, pose, "bicubic").clamp(0, CEILING)
    if min(images.shape[-2:]) < size:
        images = crop(images, size, torch.eye(2, 3), "nearest")
        spare = [0, 0]
    top, left = (int(torch.randint(n + 1, (), generator=generator)) for n in spare)
    quarter, mirror = torch.randint(4, (2,), generator=generator).tolist()
    square = images[:, top : top + size, left : left + size].rot90(quarter, (-2, -1))
    return square.flip(-1) if mirror % 2 else square


def augment_intensity(images: Tensor, generator: Generator) -> Tensor:
    """Contrast, brightness, coil shading and noise of another scanner.

    Of images ``(slices, height, width)`` in window units; clipped to ``[0, 1.5]``.
    """
    height, width = images.shape[-2:]
    gamma = 1.4 ** uniform(-1, 1, generator)
    images = images.clamp(min=1e-4).pow(gamma) * 1.2 ** uniform(-1, 1, generator)
    coarse = torch.randn(1, 1, 3, 3, generator=generator) * uniform(0, 0.2, generator)
    shading = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    images = images * shading[0].exp().to(images)
    noise = torch.randn(images.shape, generator=generator).to(images)
    images = images + noise * uniform(-0.01, 0.015, generator)
    return images.clamp(0, CEILING)
