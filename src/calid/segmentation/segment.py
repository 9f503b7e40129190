"""From slices to labels, with the network of the package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from calid.data.intensity import CEILING, IntensityWindow
from calid.geometry.grid import NetworkGrid
from calid.geometry.orientation import turn, turn_back
from calid.io.labels import CLASSES
from calid.models.layers import channels_last
from calid.runtime import PrecisionName, Runtime, choose_runtime
from calid.segmentation.network import SegmentationNetwork, load_segmentation
from calid.stack import SliceStack, Volume
from calid.weights import weights_path

__all__ = ["Segmenter", "keep_largest", "load_segmenter"]

ORIENTATIONS = (0, 2, 5, 7)
"""Numbers of the orientations in which the network sees every slice."""


class Segmenter:
    """The segmentation network on a device.

    Parameters
    ----------
    network
        Trained, already on the runtime's device.
    runtime
        Where it computes and in which precision; torch computes it.
    """

    def __init__(self, network: SegmentationNetwork, runtime: Runtime) -> None:
        self.network, self.runtime = network, runtime
        self.device = runtime.device

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
        """Labels ``(slices, height, width)`` of slices as `one_hot` takes them, int64."""
        logits = self._logits(images.to(self.device, memory_format=torch.channels_last))
        return logits.argmax(1)

    def one_hot(self, images: Tensor) -> Tensor:
        """Label slices of the networks' grid as they stand, for what learns from label maps.

        Parameters
        ----------
        images
            Shape ``(slices, 1, height, width)``, window units, sides multiples of 16.

        Returns
        -------
        Tensor
            float32 of 0 and 1, ``(slices, 4, height, width)``, on the device of ``images``:
            background, RV cavity, LV myocardium, LV cavity.
        """
        return F.one_hot(self.classes(images), len(CLASSES) + 1).movedim(-1, 1).to(images)

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
            Data ``(frames, slices, height, width)``. Of a volume whose region is known only
            that is looked at: the heart is in it.
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
    runtime = choose_runtime(device, precision)
    network = load_segmentation(weights_path("segmentation")).to(runtime.device)
    return Segmenter(channels_last(network), runtime)
