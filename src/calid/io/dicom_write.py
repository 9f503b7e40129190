"""DICOM out: a volume as a derived MR series, complete or not at all; every tag of every file."""

from __future__ import annotations

import hashlib
import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from calid.io.atomic import atomic_folder, check_new_folder
from calid.io.dicom_write_grid import Headers, Pixels, Planes, match_headers, planes, to_16_bit
from calid.io.dicom_write_modules import (
    SOFTWARE,
    code,
    own_study,
    reference,
    series_level,
    technique,
)
from calid.stack import Volume

__all__ = ["write_dicom"]


def write_dicom(
    volume: Volume,
    folder: str | os.PathLike[str],
    headers: Headers | None = None,
    *,
    thickness: float | None = None,
) -> None:
    """Write a reconstruction as a derived series of single-frame MR images.

    One file per slice and frame, numbered frame by frame. Every image says in ImageComments
    and DerivationDescription whether its slice was acquired or generated, and from which
    slices; SourceImageSequence refers to them. Acquired slices keep their stored values.

    With headers, the series belongs to the sources' study and frame of reference, and carries
    over their patient: this is the only output of the package that does, and
    `calid.io.dicom_write_modules` lists every attribute. Without, it makes a study of its own
    for an anonymous patient, the same for every reconstruction of the same slices. UIDs are
    hashes of the content: equal volumes give equal files, others never share one.

    Parameters
    ----------
    volume
        What to write. Slices lie at its true positions, also where its affine has only their
        mean step.
    folder
        The folder to make; it may exist if it is empty.
    headers
        The source images' datasets, ``[frame][acquired slice]``, slices in any order. Pixels
        are not needed. The header of one frame of a multi-frame file has its number (from 1)
        in ReferencedFrameNumber.
    thickness
        Slice thickness in mm. Generated slices estimate what the scanner would see there, so
        it is theirs too. Left empty if unknown.

    Raises
    ------
    OutputError
        If the folder holds files or cannot be written.
    GeometryError
        If the affine cannot be used or headers do not lie where the acquired slices are.
    IntensityError
        If values are not finite real numbers.

    Warns
    -----
    CalidWarning
        If values do not fit into 16-bit integers and are quantised.
    """
    check_new_folder(folder)
    places = planes(volume)
    pixels = to_16_bit(volume)
    with _quiet():
        sources = None if headers is None else match_headers(headers, volume, places)
        series = _Series.of(volume, places, pixels, sources, thickness)
        frames, slices = volume.data.shape[:2]
        with atomic_folder(folder) as temporary:
            for frame, place in np.ndindex(frames, slices):
                name = f"slice-{place + 1:03d}.dcm"
                if frames > 1:
                    name = f"frame-{frame + 1:03d}_{name}"
                image = series.image(frame, place)
                image.save_as(temporary / name, enforce_file_format=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """A source's values may break rules; they are carried over as they are, without a remark."""
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True, eq=False)
class _Series:
    """All that the images of one series are made of.

    Parameters
    ----------
    volume, places, pixels
        What is written, where it lies, and its stored values.
    sources
        Headers of the acquired slices, ``[frame][acquired slice]``; none if it is not of DICOM.
    shared
        Attributes that are equal in all images.
    identity
        Hash of everything that the series depends on.
    """

    volume: Volume
    places: Planes
    pixels: Pixels
    sources: list[list[Dataset]] | None
    shared: Dataset
    identity: str

    @classmethod
    def of(
        cls,
        volume: Volume,
        places: Planes,
        pixels: Pixels,
        sources: list[list[Dataset]] | None,
        thickness: float | None,
    ) -> _Series:
        """Gather what is equal in all images."""
        known = [[str(source.SOPInstanceUID) for source in frame] for frame in sources or ()]
        grid = (volume.affine, volume.positions, volume.acquired, volume.frame_times)
        identity = _hash(SOFTWARE, known, volume.intensity, thickness, *grid, volume.data)
        # What every reconstruction of the same slices has in common.
        acquired = volume.acquired
        scan = _hash(volume.affine[:, [0, 1, 3]], volume.positions[acquired])
        scan = _hash(scan, volume.data[:, acquired])
        own = own_study(_uid(scan, "study"), _uid(scan, "frame"), f"CALID-{scan[:12].upper()}")
        shared = series_level(own if sources is None else sources[0][0])
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
            if not shared.get(keyword):
                shared[keyword] = own[keyword]
        shared.SeriesInstanceUID = _uid(identity, "series")
        shared.SliceThickness = None if thickness is None else _ds(thickness)
        if places.step is not None:
            shared.SpacingBetweenSlices = _ds(places.step)
        shared.PixelSpacing = [_ds(step) for step in places.spacing]
        shared.ImageOrientationPatient = [_ds(value) for value in places.orientation]
        _, _, shared.Rows, shared.Columns = pixels.data.shape
        shared.SamplesPerPixel, shared.PhotometricInterpretation = 1, "MONOCHROME2"
        shared.BitsAllocated, shared.BitsStored, shared.HighBit = 16, 16, 15
        shared.PixelRepresentation = int(pixels.data.dtype.kind == "i")
        shared.RescaleSlope = _ds(pixels.intensity.slope)
        shared.RescaleIntercept = _ds(pixels.intensity.intercept)
        shared.RescaleType = "US"
        centre, width = pixels.window
        shared.WindowCenter, shared.WindowWidth = _ds(centre), _ds(width)
        # The default, LINEAR, has no windows narrower than 1.
        shared.VOILUTFunction = "LINEAR_EXACT"
        return cls(volume, places, pixels, sources, shared, identity)

    def image(self, frame: int, place: int) -> Dataset:
        """One slice of one frame, ready to be saved."""
        frames, slices = self.volume.data.shape[:2]
        image = Dataset()
        image.update(self.shared)
        image.update(self._origin(frame, place))
        image.SOPInstanceUID = self._instance(frame, place)
        image.InstanceNumber = frame * slices + place + 1
        image.ImagePositionPatient = [_ds(value) for value in self.places.corners[place]]
        image.SliceLocation = _ds(self.places.locations[place])
        if frames > 1:
            image.TemporalPositionIdentifier = frame + 1
            image.NumberOfTemporalPositions = image.CardiacNumberOfImages = frames
        pixels = self.pixels.data[frame, place]
        image.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        image["PixelData"].VR = "OW"
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return image

    def _origin(self, frame: int, place: int) -> Dataset:
        """What says where a slice comes from: the marks, the references, the technique."""
        real = np.flatnonzero(self.volume.acquired)
        above = int(np.searchsorted(real, place))
        acquired = bool(self.volume.acquired[place])
        parents = [above] if acquired else [above - 1, above]
        if self.sources is None:
            image = technique(Dataset(), acquired, self._trigger_time(frame))
            # Without source images, a generated slice refers to the acquired ones beside it.
            found = [] if acquired else [self._instance(frame, int(real[i])) for i in parents]
            references = [reference(MRImageStorage, uid) for uid in found]
        else:
            headers = [self.sources[frame][index] for index in parents]
            image = technique(headers[0], acquired, self._trigger_time(frame))
            references = [
                reference(h.SOPClassUID, h.SOPInstanceUID, h.get("ReferencedFrameNumber"))
                for h in headers
            ]
        if references:
            image.SourceImageSequence = references
        if acquired:
            mark = f"acquired slice {above + 1}"
            how = f"Values of {mark} of {len(real)}, {self.pixels.kept}."
        else:
            mark = f"generated by CaLID between slices {above} and {above + 1}"
            how = f"An estimate {mark} of {len(real)}. Not an observation; research use only."
            image.DerivationCodeSequence = [code("113085", "Spatial resampling")]
        image.ImageComments = f"CaLID reconstructed series: {mark}"
        image.DerivationDescription = f"{SOFTWARE}: {how}"
        return image

    def _trigger_time(self, frame: int) -> str | None:
        """Of films, and of single frames whose sources have one."""
        known = self.sources is not None and "TriggerTime" in self.sources[frame][0]
        if self.volume.data.shape[0] == 1 and not known:
            return None
        return _ds(self.volume.frame_times[frame] * 1000)

    def _instance(self, frame: int, place: int) -> UID:
        return _uid(self.identity, f"image {frame} {place}")


def _ds(value: float) -> str:
    """A number in the 16 characters that DICOM has for it: 10 digits or more."""
    return format_number_as_ds(float(value))


def _uid(identity: str, part: str) -> UID:
    """A UID under the root for UUIDs, which needs no registration."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'calid {identity} {part}').int}")


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.shape} {part.dtype.str}".encode())
            digest.update(np.ascontiguousarray(part).data.cast("B"))
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()
