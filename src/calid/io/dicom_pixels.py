"""Stored values of the kept images, and the scale that they are in.

DICOM scales every image by its own slope and intercept. If all are equal, stored values stay
as they are and the scale goes to `Intensity`. If not (Philips may scale every slice by itself),
values become ``stored * slope + intercept`` in float32, or in float64 where float32 could not
be turned back into the very same stored values.

Philips' rescaled values are for display; what compares between series is
``(stored + intercept / slope) / scale slope``, from its private field (2005,xx0E). That is
used where the scale slopes of images differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, config
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from calid.errors import InputError, IntensityError
from calid.io.dicom_decode import Decoder
from calid.io.dicom_fields import number, quiet, text
from calid.io.dicom_images import Image, parse
from calid.io.dicom_resample import blended
from calid.stack import Intensity

__all__ = ["read_pixels"]

_PHILIPS = "Philips MR Imaging DD 001"


def _check_budget(images: Sequence[Image], path: Path, limit: int) -> None:
    """Refuse images of more than ``limit`` bytes, or of unknown size, before any is decoded."""
    total = 0
    for image in images:
        bits = number(image.header, "BitsAllocated")
        if bits not in (8, 16, 32):
            raise InputError(
                path,
                f"{image.member.label.capitalize()} has no pixels of 8, 16 or 32 bits.",
                "Export the images again as grey values.",
            )
        total += image.matrix[0] * image.matrix[1] * int(bits) // 8
    if total > limit:
        raise InputError(
            path,
            f"The images claim {total / 2**30:.1f} GiB; the limit is {limit / 2**30:.1f} GiB.",
            "Give the short-axis series only.",
        )


def read_pixels(
    slices: Sequence[Sequence[Image]],
    path: Path,
    limit: int,
    shares: Mapping[int, NDArray[np.float64]],
) -> tuple[NDArray[np.generic], Intensity]:
    """Decode images ``[slice][frame]`` of one matrix and bring them to one scale.

    Slices with ``shares`` are resampled in time (`calid.io.dicom_resample`).

    Returns data of shape ``(frames, slices, height, width)`` and what turns it into image units.
    An `InputError` if they take more than ``limit`` bytes or cannot be decoded, an `IntensityError`
    if they are not grey values or a slope is 0.
    """
    images = [image for frames in slices for image in frames]
    _check_budget(images, path, limit)
    scales = _scales(images, path)
    with quiet():
        arrays = _decode(images, path)
    if len(set(scales)) == 1:
        intensity = Intensity(*scales[0])
    else:
        intensity, arrays = Intensity(), _scaled(arrays, scales)
    dtype = np.result_type(*{array.dtype for array in arrays})
    data = np.empty((len(shares.get(0, slices[0])), len(slices), *images[0].matrix), dtype)
    every = iter(arrays)
    for place, own in enumerate(slices):
        film = list(islice(every, len(own)))
        part = shares.get(place)
        data[:, place] = film if part is None else blended(film, part, dtype)
    return data, intensity


def _decode(images: Sequence[Image], path: Path) -> list[NDArray[Any]]:
    """Arrays of images; every file is opened once."""
    files: dict[str, list[Image]] = {}
    for image in images:
        files.setdefault(image.member.label, []).append(image)
    arrays: dict[Image, NDArray[Any]] = {}
    with Decoder() as decoder:
        for wanted in files.values():
            member = wanted[0].member
            dataset = parse(member, path, pixels=True)
            assert dataset is not None  # it has been parsed before
            if text(dataset, "PhotometricInterpretation") != "MONOCHROME2":
                raise IntensityError(
                    path,
                    f"{member.label.capitalize()} does not hold grey values that grow brighter "
                    "(MONOCHROME2).",
                    "Export magnitude images in grey values.",
                )
            if "TransferSyntaxUID" not in getattr(dataset, "file_meta", ()):
                # Without a preamble nothing names the encoding.
                implicit = dataset.original_encoding[0]
                dataset.file_meta = FileMetaDataset()
                dataset.file_meta.TransferSyntaxUID = (
                    ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
                )
            arrays |= {image: _array(dataset, image, path, decoder) for image in wanted}
    return [arrays[image] for image in images]


def _array(dataset: Dataset, image: Image, path: Path, decoder: Decoder) -> NDArray[Any]:
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID), validation_mode=config.IGNORE)
    try:
        index = image.frame if image.multiple else None
        if syntax.is_transfer_syntax and syntax.is_compressed and syntax != RLELossless:
            array = decoder.decode(image.member.read(-1), index)
        else:
            array = np.asarray(pixel_array(dataset, index=index, raw=True))
    except Exception as error:  # decoders raise many things, and quote values
        label = image.member.label.capitalize()
        if syntax.is_transfer_syntax and not syntax.is_compressed:
            raise InputError(
                path, f"The pixels of {label} are cut off or damaged.", "Copy or export it again."
            ) from error
        # Only names from the standard: a UID of somebody's own may name them.
        name = syntax.name if syntax.startswith("1.2.840.10008.") else "unknown encoding"
        raise InputError(
            path,
            f"The pixels of {label} cannot be decoded ({name}).",
            "Copy it again. If no file of this encoding is read, export it uncompressed or in a "
            "lossless encoding, for example with gdcmconv --raw.",
        ) from error
    if array.shape != image.matrix:
        raise InputError(
            path, f"The pixels of {image.member.label} do not fit its matrix.", "Export it again."
        )
    return array


def _scales(images: Sequence[Image], path: Path) -> list[tuple[float, float]]:
    """Slope and intercept of every image."""
    slopes, intercepts = (
        [default if (v := number(i.header, keyword)) is None else v for i in images]
        for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if 0 in slopes:
        raise IntensityError(path, "An image has a rescale slope of 0.", "Export it again.")
    philips = [_scale_slope(image.header) for image in images]
    if None in philips or len(set(philips)) == 1:
        return list(zip(slopes, intercepts, strict=True))
    return [
        (1 / scale, intercept / slope / scale)
        for slope, intercept, scale in zip(slopes, intercepts, philips, strict=True)
        if scale is not None
    ]


def _scale_slope(header: Dataset) -> float | None:
    try:
        value = header.private_block(0x2005, _PHILIPS)[0x0E].value
        # Implicit VR does not say what a private field is: four bytes of a float.
        found = np.frombuffer(value, "<f4")[0] if isinstance(value, bytes) else value
        return float(found) if np.isfinite(found) and found != 0 else None
    except (KeyError, ValueError, TypeError, IndexError):
        return None


def _scaled(arrays: list[NDArray[Any]], scales: list[tuple[float, float]]) -> list[NDArray[Any]]:
    """Image units, in the shortest float type that gives back the stored values."""
    for dtype in (np.float32, np.float64):
        out = [
            (array * slope + intercept).astype(dtype)
            for array, (slope, intercept) in zip(arrays, scales, strict=True)
        ]
        back = (
            np.array_equal(np.rint((image.astype(np.float64) - intercept) / slope), array)
            for image, array, (slope, intercept) in zip(out, arrays, scales, strict=True)
        )
        if all(back):
            break
    return out
