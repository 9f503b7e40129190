"""From slices to labels: the segmentation network, and how the package uses it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from calid.data.intensity import CEILING, IntensityWindow
from calid.geometry.grid import NetworkGrid
from calid.io.labels import CLASSES
from calid.models.layers import ChannelNorm, ResidualBlock, channels_last, conv
from calid.models.store import load_network
from calid.runtime import PrecisionName, Runtime, choose_runtime
from calid.stack import SliceStack, Volume
from calid.weights import weights_path

__all__ = [
    "SegmentationConfig",
    "SegmentationNetwork",
    "Segmenter",
    "keep_largest",
    "load_segmentation",
    "load_segmenter",
]

KIND = "segmentation"

ORIENTATIONS = (0, 2, 5, 7)
"""Numbers of the orientations in which the network sees every slice; see `turn`."""


@dataclass(frozen=True)
class SegmentationConfig:
    """Sizes of the network."""

    widths: tuple[int, ...] = (40, 80, 128, 160)  # channels at half resolution and below
    depth: tuple[int, ...] = (1, 1, 2, 2)  # residual blocks of a level on the way down; up, one
    classes: int = 4  # labels, the background included


class SegmentationNetwork(nn.Module):
    """Log-odds of every label at every pixel of 1.5 mm.

    The first and the last factor of two are pixel (un)shuffles, as in the autoencoder: no
    convolution runs at full resolution.
    """

    def __init__(self, config: SegmentationConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.entry = conv(4, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(w) for _ in range(d)))
            for w, d in zip(widths, config.depth, strict=True)
        )
        self.shrink = nn.ModuleList(conv(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.grow = nn.ModuleList(conv(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(ResidualBlock(w) for w in widths[:-1])
        self.exit = nn.Sequential(
            ChannelNorm(widths[0]), nn.SiLU(), conv(widths[0], 4 * config.classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(slices, classes, height, width)`` of images ``(slices, 1, height, width)``.

        Images are in window units; sides are multiples of 16.
        """
        h, skips = self.entry(F.pixel_unshuffle(2 * images - 1, 2)), []
        for level, block in enumerate(self.down):
            h = block(h)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        for level in reversed(range(len(self.up))):
            grown = self.grow[level](F.interpolate(h, scale_factor=2.0))
            h = self.up[level](grown + skips[level])
        return F.pixel_shuffle(self.exit(h), 2).float()


class Segmenter:
    """The segmentation network on a device.

    Parameters
    ----------
    network
        Trained, already on the runtime's device.
    runtime
        Device and precision of the network, which runs in torch.
    """

    def __init__(self, network: SegmentationNetwork, runtime: Runtime) -> None:
        self.network, self.runtime = network, runtime
        self.device = runtime.device

    @classmethod
    def released(cls, runtime: Runtime) -> Self:
        """With the released network.

        Raises
        ------
        WeightsError
            If the package's weights are missing or damaged.
        """
        network = load_segmentation(weights_path("segmentation")).to(runtime.device)
        return cls(channels_last(network), runtime)

    @torch.no_grad()
    def label_slices(
        self, images: NDArray[np.float32], spacing: tuple[float, float]
    ) -> NDArray[np.uint8]:
        """Label every slice on its own, from four of its orientations.

        Parameters
        ----------
        images
            Shape ``(slices, height, width)``, window units.
        spacing
            In-plane ``(row, column)`` spacing in mm.

        Returns
        -------
        NDArray
            uint8, same shape: 0 background, 1 RV cavity, 2 LV myocardium, 3 LV cavity.
        """
        grid = NetworkGrid.of(images.shape[-2:], spacing)
        shown = grid.enter(torch.from_numpy(np.ascontiguousarray(images))).clamp(0, CEILING)
        out = []
        for part in shown[:, None].split(8):
            shares = self._shares(part)
            # One class at a time: the grid takes stacks of images.
            native = torch.stack([grid.leave(share) for share in shares.unbind(1)], 1)
            out.append(native.argmax(1))
        return np.asarray(torch.cat(out).numpy(), np.uint8)

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:
        """Label slices of the network's grid as they stand, from one orientation.

        Parameters
        ----------
        images
            Shape ``(slices, 1, height, width)``, window units, sides multiples of 16.

        Returns
        -------
        Tensor
            int64, ``(slices, height, width)``.
        """
        logits = self._logits(images.to(self.device, memory_format=torch.channels_last))
        return logits.argmax(1)

    def _logits(self, images: Tensor) -> Tensor:
        with self.runtime.autocast():
            logits: Tensor = self.network(images)
        return logits

    def _shares(self, images: Tensor) -> Tensor:
        """Probability of every label, averaged over two rotations and two reflections."""
        total = images.new_zeros(())
        for number in ORIENTATIONS:
            turned = turn(images, number).to(self.device, memory_format=torch.channels_last)
            shares = self._logits(turned).softmax(1).cpu()
            total = total + turn_back(shares, number)
        return total / len(ORIENTATIONS)

    def label_volume(
        self,
        volume: SliceStack | Volume,
        on_frame: Callable[[int], None] = lambda frame: None,
    ) -> NDArray[np.uint8]:
        """Label every frame of a stack or volume, and keep the one heart in it.

        Parameters
        ----------
        volume
            Data ``(frames, slices, height, width)``. In a volume whose region is known, only
            the region is labelled, since it holds the heart.
        on_frame
            Called with the number of frames done.

        Returns
        -------
        NDArray
            uint8, the data's shape; see `keep_largest` for what is dropped.
        """
        window = IntensityWindow.of(volume.data, volume.intensity)
        labels = np.zeros(volume.data.shape, np.uint8)
        region = volume.region if isinstance(volume, Volume) else None
        rows, columns = (slice(*span) for span in region or ((None, None), (None, None)))
        for frame, images in enumerate(volume.data):
            seen = window.normalise(images[:, rows, columns])
            labels[frame, :, rows, columns] = keep_largest(
                self.label_slices(seen, volume.pixel_spacing)
            )
            on_frame(frame + 1)
        return labels


def keep_largest(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One heart, and one piece of every label in it.

    Parameters
    ----------
    labels
        Shape ``(slices, height, width)``, neighbouring slices of one frame.

    Returns
    -------
    NDArray
        Labels outside of the largest labelled piece are background, and within it all but
        the largest piece of each label. Pieces touch at corners, and across slices.
    """
    heart = np.where(_largest(labels > 0), labels, 0)
    kept = np.zeros_like(labels)
    for label in CLASSES.values():
        kept[_largest(heart == label)] = label
    return kept


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected piece of a mask."""
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == sizes.argmax())


def load_segmenter(device: str = "auto", precision: PrecisionName = "auto") -> Segmenter:
    """The released network.

    Parameters
    ----------
    device, precision
        As `calid.inference.model.load_model`.

    Raises
    ------
    UsageError
        If device or precision do not exist or are not there.
    WeightsError
        If the package's weights are missing or damaged.
    """
    return Segmenter.released(choose_runtime(device, precision))


def load_segmentation(path: Path) -> SegmentationNetwork:
    """Read the network, in evaluation mode, on the CPU."""
    return load_network(path, KIND, lambda **c: SegmentationNetwork(SegmentationConfig(**c)))


def turn(images: Tensor, number: int) -> Tensor:
    """Images ``(..., height, width)`` in one of eight orientations: four rotations, or reflected.

    ``number`` counts modulo 8; 0 leaves them as they are.
    """
    images = images.flip(-1) if number % 8 >= 4 else images
    return torch.rot90(images, number % 4, (-2, -1)).contiguous()


def turn_back(images: Tensor, number: int) -> Tensor:
    """Undo `turn`."""
    images = torch.rot90(images, -number % 4, (-2, -1))
    return images.flip(-1) if number % 8 >= 4 else images
