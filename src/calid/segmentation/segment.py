"""From slices to labels, with the network of the package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from calid.data.intensity import CEILING, IntensityWindow
from calid.geometry.grid import NetworkGrid
from calid.inference.runtime import choose_device, choose_precision
from calid.models.layers import channels_last
from calid.segmentation.network import SegmentationNetwork, load_segmentation
from calid.stack import SliceStack, Volume
from calid.weights import weights_path

__all__ = ["Segmenter", "load_segmenter"]


class Segmenter:
    """The segmentation network on a device.

    Parameters
    ----------
    network
        Trained, already on ``device``.
    device
        Where it is.
    """

    def __init__(self, network: SegmentationNetwork, device: torch.device) -> None:
        self.network, self.device = network, device
        self.precision = choose_precision(device)

    @torch.no_grad()
    def label_slices(
        self, images: NDArray[np.float32], spacing: tuple[float, float]
    ) -> NDArray[np.uint8]:
        """Label every slice on its own.

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
            batch = part.to(self.device, memory_format=torch.channels_last)
            fast = self.precision != torch.float32
            with torch.autocast(self.device.type, self.precision, fast):
                shares = self.network(batch).softmax(1).cpu()
            # One class at a time: the grid takes stacks of images.
            native = torch.stack([grid.leave(share) for share in shares.unbind(1)], 1)
            out.append(native.argmax(1))
        return np.asarray(torch.cat(out).numpy(), np.uint8)

    def label_volume(
        self,
        volume: SliceStack | Volume,
        on_frame: Callable[[int], None] = lambda frame: None,
    ) -> NDArray[np.uint8]:
        """Label every frame of a stack or volume, and keep the one largest heart.

        Parameters
        ----------
        volume
            Data ``(frames, slices, height, width)``.
        on_frame
            Called with the number of frames done.

        Returns
        -------
        NDArray
            uint8, the data's shape; what does not touch the largest labelled piece of its
            frame is background.
        """
        window = IntensityWindow.of(volume.data)
        labels = np.empty(volume.data.shape, np.uint8)
        for frame, images in enumerate(volume.data):
            found = self.label_slices(window.normalise(images), volume.pixel_spacing)
            labels[frame] = keep_largest(found)
            on_frame(frame + 1)
        return labels


def keep_largest(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels ``(slices, height, width)`` without the pieces apart from the largest one."""
    pieces, count = ndimage.label(labels > 0, structure=np.ones((3, 3, 3)))
    if count < 2:
        return labels
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.where(pieces == sizes.argmax(), labels, 0).astype(np.uint8)


def load_segmenter(device: str = "auto") -> Segmenter:
    """The released network.

    Raises
    ------
    WeightsError
        If the package's weights are missing or damaged.
    """
    place = choose_device(device)
    network = load_segmentation(weights_path("segmentation")).to(place)
    return Segmenter(channels_last(network), place)
