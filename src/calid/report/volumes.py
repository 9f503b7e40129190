"""Ventricular volumes from the acquired slices and from a reconstruction that is there already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from calid.segmentation.measures import Function, Measurement, cavity_volumes, heart_function
from calid.segmentation.segment import Segmenter
from calid.stack import SliceStack, Volume

__all__ = ["Volumes", "measured"]


@dataclass(frozen=True)
class Volumes:
    """Both ways of measuring, over the same depth.

    Parameters
    ----------
    sparse, dense
        `Measurement` of a single frame, `Function` of a film; of both the same kind.
    """

    sparse: Measurement | Function
    dense: Measurement | Function


def measured(
    stack: SliceStack,
    volume: Volume,
    segmenter: Segmenter,
    on_frame: Callable[[int], None] = lambda frame: None,
) -> Volumes:
    """Label and measure.

    Of a film, all acquired frames are labelled, which tells end-diastole and end-systole; of
    the reconstruction these two only.

    Parameters
    ----------
    volume
        Reconstructed from ``stack``.
    on_frame
        Called with the number of acquired frames done.

    Raises
    ------
    DataError
        If the left ventricle is not found.
    """
    labels = segmenter.label_volume(stack, on_frame)
    spacing = stack.pixel_spacing
    sparse = cavity_volumes(labels, stack.positions, spacing)
    reach = float(stack.gaps[0] / 2), float(stack.gaps[-1] / 2)

    def dense(frame: int) -> Measurement:
        one = slice(frame, frame + 1)
        still = replace(
            volume,
            data=volume.data[one],
            frame_times=volume.frame_times[one],
            uncertainty=None,
        )
        found = segmenter.label_volume(still)
        return cavity_volumes(found, volume.positions, spacing, reach)[0]

    if len(sparse) == 1:
        return Volumes(sparse[0], dense(0))
    function = heart_function(sparse)
    pair = [dense(function.ed_frame), dense(function.es_frame)]
    both = heart_function(pair, ed=0, es=1)
    return Volumes(function, replace(both, ed_frame=function.ed_frame, es_frame=function.es_frame))
