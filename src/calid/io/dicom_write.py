"""Write a volume as a derived DICOM MR series, complete or not at all.

Only the attributes listed here are kept from a source's header: no private ones, no
operators, no free-text comments. Patient and study are kept because a derived series has to be
filed with its study; de-identify the source first if the output is to be shared.
"""

from __future__ import annotations

import hashlib
import os
import uuid
import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from calid import Intensity, Volume
from calid.errors import CalidWarning, GeometryError, IntensityError
from calid.geometry.affine import check
from calid.io.atomic import atomic_folder, check_new_folder
from calid.io.contrast import contrast

__all__ = ["Headers", "write_dicom"]

SOFTWARE = f"calid {version('calid')}"

PATIENT_AND_STUDY = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID"),
    *("PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight"),
    *("PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence", "StudyInstanceUID", "StudyDate", "StudyTime"),
    *("StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined"),
)
"""Equal in all slices of a stack; taken from its first."""

TECHNIQUE = (
    *("ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType"),
    *("RepetitionTime", "EchoTime", "EchoTrainLength", "InversionTime", "FlipAngle"),
    *("MagneticFieldStrength", "ImagingFrequency", "ImagedNucleus", "NumberOfAverages"),
    *("PixelBandwidth", "NominalInterval", "HeartRate", "BurnedInAnnotation"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
"""How a slice was acquired; a generated one has it from the slice below."""

ACQUISITION = ("AcquisitionDate", "AcquisitionTime", "AcquisitionNumber")
"""When a slice was acquired; a generated one was not."""

_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName"),
    *("PositionReferenceIndicator", "PatientPosition"),
)


def _series_level(source: Dataset) -> Dataset:
    """Attributes that all images of the series share, by one header of the sources."""
    image = Dataset()
    _copy(source, image, PATIENT_AND_STUDY)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in image:
            setattr(image, keyword, "")
    if not image.get("BodyPartExamined"):
        image.BodyPartExamined = "HEART"
    image.SOPClassUID = MRImageStorage
    # Value 3 is not optional for MR.
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.Modality = "MR"
    _copy(source, image, ("SeriesNumber", "SeriesDescription"))
    image.SeriesNumber = 1000 + int(image.get("SeriesNumber") or 0)
    described = image.get("SeriesDescription") or ""
    image.SeriesDescription = f"CaLID reconstructed {described}"[:64].strip()
    image.Manufacturer = "CaLID"
    image.ManufacturerModelName = "calid"
    image.SoftwareVersions = SOFTWARE
    if source.get("Manufacturer"):
        scanner = Dataset()
        _copy(source, scanner, ("Manufacturer", "ManufacturerModelName", "SoftwareVersions"))
        scanner.PurposeOfReferenceCodeSequence = [_code("109101", "Acquisition Equipment")]
        image.ContributingEquipmentSequence = [scanner]
    image.ContentDate = image.ContentTime = ""
    return image


def _technique(source: Dataset, acquired: bool, trigger_time: str | None) -> Dataset:
    """Technique of a slice, or of the one below; an unknown sequence is marked as research.

    ``trigger_time`` is in ms after the R wave; none if the scan was not gated.
    """
    image = Dataset()
    image.ScanningSequence, image.SequenceVariant = "RM", "NONE"
    image.ScanOptions = image.RepetitionTime = image.EchoTime = image.EchoTrainLength = None
    image.MRAcquisitionType = "2D"
    _copy(source, image, TECHNIQUE + (ACQUISITION if acquired else ()))
    if trigger_time is not None:
        image.TriggerTime = trigger_time
        options = image.ScanOptions or []
        options = [options] if isinstance(options, str) else list(options)
        # A time after the R wave is allowed only where the heart gates the scan.
        if not {"CG", "PPG"} & set(options):
            image.ScanOptions = [*options, "CG"]
    return image


def _reference(sop_class: str, instance: str, frame: int | None = None) -> Dataset:
    """One item of SourceImageSequence; frames count from 1."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
    if frame is not None:
        item.ReferencedFrameNumber = frame
    purpose = _code("121322", "Source image for image processing operation")
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _code(value: str, meaning: str) -> Dataset:
    """A code of DICOM's own terminology."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _copy(source: Dataset, target: Dataset, keywords: tuple[str, ...]) -> None:
    """Copy what is there; text as it is, numbers only if they are numbers."""
    for keyword in keywords:
        if keyword not in source:
            continue
        # A copy: setting a value later would change the source's element in place.
        element = copy(source[keyword])
        if element.VR in ("DS", "IS"):
            try:
                element = DataElement(
                    element.tag, element.VR, element.value, validation_mode=config.RAISE
                )
            except (ValueError, TypeError, OverflowError):
                continue
        target[keyword] = element


Headers = Sequence[Sequence[Dataset]]
"""Source slices without pixels, ``[frame][slice]``."""

EQUAL_STEPS = 0.01
"""Largest relative difference between steps that are called one spacing."""

_LEVELS = 2**16 - 1
_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class _Planes:
    """The planes of a volume's slices, in the patient's axes (LPS+) and mm."""

    orientation: NDArray[np.float64]  # (6,), unit vectors along a row and along a column
    corners: NDArray[np.float64]  # (slices, 3), the centre of the first pixel of every slice
    direction: NDArray[np.float64]  # (3,), unit vector from the first slice to the last
    step: float | None  # from slice to slice; none if steps differ


def _planes(volume: Volume) -> _Planes:
    """Planes of a volume: RAS+ turned to LPS+, true slice positions kept."""
    affine = check(volume.affine, "volume")
    axes = _TO_LPS @ affine[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    row, column, direction = axes.T
    # DICOM wants right angles; an affine may be off by as much as `check` tolerates.
    column = column - (column @ row) * row
    column /= np.linalg.norm(column)
    # The affine's planes are even; acquired slices may lie beside theirs, generated ones do not.
    step = float(np.linalg.norm(affine[:3, 2]))
    along = volume.positions - step * np.arange(len(volume.positions))
    on_plane = np.ones_like(volume.acquired) if volume.acquired.all() else ~volume.acquired
    heights = volume.positions - along[on_plane].mean()
    corners = _TO_LPS @ affine[:3, 3] + heights[:, None] * direction
    steps = np.diff(heights)
    equal = steps.size > 0 and float(np.ptp(steps)) <= EQUAL_STEPS * float(steps.mean())
    return _Planes(
        # Rounded far below any scanner's precision, and without minus zeros.
        orientation=np.concatenate([row, column]).round(12) + 0.0,
        corners=corners.round(9) + 0.0,
        direction=direction,
        step=float(steps.mean()) if equal else None,
    )


def _match_headers(headers: Headers, volume: Volume, places: _Planes) -> list[list[Dataset]]:
    """Source headers ``[frame][acquired slice]``, matched to the slices by position."""
    corners = places.corners[volume.acquired]
    gaps = np.diff(volume.positions[volume.acquired])
    reach = float(gaps.min()) / 2 if gaps.size else np.inf
    frames = volume.data.shape[0]
    if len(headers) != frames or any(len(frame) != len(corners) for frame in headers):
        raise GeometryError(
            "headers",
            f"{frames} frames of {len(corners)} acquired slices need one header each.",
            "Pass the headers of the stack that was reconstructed.",
        )
    matched = []
    for number, frame in enumerate(headers):
        found = np.array([header.ImagePositionPatient for header in frame], dtype=np.float64)
        off = np.abs((found[None] - corners[:, None]) @ places.direction)
        order = off.argmin(axis=1)
        if len(set(order.tolist())) < len(corners) or float(off.min(axis=1).max()) >= reach:
            raise GeometryError(
                "headers",
                f"In frame {number + 1} they do not lie where the acquired slices are.",
                "Pass the headers of the stack that was reconstructed.",
            )
        matched.append([frame[index] for index in order])
    return matched


def _to_16_bit(volume: Volume) -> tuple[NDArray[np.integer[Any]], Intensity, str]:
    """Stored values in 16 bits, their scale, and how they were converted, in words.

    Whole numbers that fit are unchanged. Those that span no more than 65535 are shifted without
    loss. Everything else is quantised to the whole unsigned range, with slope and intercept to undo
    it, and a warning states the largest change in image units.
    """
    data: NDArray[Any] = volume.data
    if data.dtype.kind not in "iuf":
        raise IntensityError(
            "volume", f"DICOM images hold real numbers, not {data.dtype}.", "Use magnitudes."
        )
    low, high = float(data.min()), float(data.max())
    if not np.isfinite(high - low):
        raise IntensityError("volume", "Some values are NaN or infinite.", "Fill them first.")
    whole = data.dtype.kind in "iu" or all(np.array_equal(x, np.rint(x)) for x in data)
    scale, kept = volume.intensity, "unchanged"
    for dtype in (np.uint16, np.int16):
        if whole and np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return data.astype(dtype), scale, kept
    step = (high - low) / _LEVELS or 1.0
    if whole:
        step = float(np.ceil(step))
    levels = np.empty(data.shape, np.uint16)
    for frame, values in zip(levels, data, strict=True):
        frame[:] = np.rint((values.astype(np.float64) - low) / step).clip(0, _LEVELS)
    if not whole or step > 1:
        kept = "quantised to 16 bits"
        loss = step / 2 * abs(scale.slope)
        warnings.warn(
            f"DICOM holds 16-bit integers, so {data.dtype} values are quantised there: they "
            f"change by up to {loss:.2g}, {50 / _LEVELS:.1g} % of their range.",
            CalidWarning,
            stacklevel=3,
        )
    return levels, Intensity(step * scale.slope, low * scale.slope + scale.intercept), kept


def _window(volume: Volume) -> tuple[float, float]:
    """One window for all slices: the contrast of the acquired ones."""
    found = contrast(volume.data[:, volume.acquired])
    ends = np.array([found.low, found.high])
    low, high = np.sort(ends * volume.intensity.slope + volume.intensity.intercept)
    return float(low + high) / 2, float(high - low) or 1.0


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

    With headers, the series joins the sources' study and frame of reference and keeps their
    patient: no other output of the package does, and the constants of this module list every
    attribute. Without headers, it gets its own study of an anonymous patient, the same for
    every reconstruction of the same slices. UIDs are hashes of the content: equal volumes give
    equal files, and different volumes share no series or image UID.

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
    places = _planes(volume)
    pixels = _to_16_bit(volume)
    # A source's values may break rules; they are carried over as they are.
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = None if headers is None else _match_headers(headers, volume, places)
        series = _Series(volume, places, pixels, sources, thickness)
        frames, slices = volume.data.shape[:2]
        with atomic_folder(folder) as temporary:
            for frame, place in np.ndindex(frames, slices):
                name = f"slice-{place + 1:03d}.dcm"
                if frames > 1:
                    name = f"frame-{frame + 1:03d}_{name}"
                image = series.image(frame, place)
                image.save_as(temporary / name, enforce_file_format=True)


class _Series:
    """All that the images of one series are made of.

    ``sources`` are headers ``[frame][acquired slice]``; none without DICOM input.
    """

    def __init__(
        self,
        volume: Volume,
        places: _Planes,
        pixels: tuple[NDArray[np.integer[Any]], Intensity, str],
        sources: list[list[Dataset]] | None,
        thickness: float | None,
    ) -> None:
        self._volume, self._places, self._sources = volume, places, sources
        self._data, scale, self._kept = pixels
        made_from = volume.provenance.get("input", {})
        self._resampled = {found["slice"] for found in made_from.get("resampled_slices", ())}
        known = [[str(source.SOPInstanceUID) for source in frame] for frame in sources or ()]
        grid = (volume.affine, volume.positions, volume.acquired, volume.frame_times)
        self._identity = _hash(SOFTWARE, known, volume.intensity, thickness, *grid, volume.data)
        # What every reconstruction of the same slices has in common.
        acquired = volume.acquired
        scan = _hash(volume.affine[:, [0, 1, 3]], volume.positions[acquired])
        scan = _hash(scan, volume.data[:, acquired])
        # Used if there is no source header. Each heart gets its own study and patient, so that
        # archives do not file different hearts as one.
        own = Dataset()
        own.PatientName, own.PatientID = "CaLID^Anonymous", f"CALID-{scan[:12].upper()}"
        own.StudyID, own.StudyInstanceUID = "1", _uid(scan, "study")
        own.FrameOfReferenceUID = _uid(scan, "frame")
        shared = _series_level(own if sources is None else sources[0][0])
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
            if not shared.get(keyword):
                shared[keyword] = own[keyword]
        shared.SeriesInstanceUID = _uid(self._identity, "series")
        shared.SliceThickness = None if thickness is None else _ds(thickness)
        if places.step is not None:
            shared.SpacingBetweenSlices = _ds(places.step)
        shared.PixelSpacing = [_ds(step) for step in volume.pixel_spacing]
        shared.ImageOrientationPatient = [_ds(value) for value in places.orientation]
        self._frames, self._slices, shared.Rows, shared.Columns = self._data.shape
        shared.SamplesPerPixel, shared.PhotometricInterpretation = 1, "MONOCHROME2"
        shared.BitsAllocated, shared.BitsStored, shared.HighBit = 16, 16, 15
        shared.PixelRepresentation = int(self._data.dtype.kind == "i")
        shared.RescaleSlope, shared.RescaleIntercept = _ds(scale.slope), _ds(scale.intercept)
        shared.RescaleType = "US"
        centre, width = _window(volume)
        shared.WindowCenter, shared.WindowWidth = _ds(centre), _ds(width)
        # The default, LINEAR, has no windows narrower than 1.
        shared.VOILUTFunction = "LINEAR_EXACT"
        self._shared = shared
        row, column = places.orientation[:3], places.orientation[3:]
        self._locations = places.corners @ np.cross(row, column)

    def image(self, frame: int, place: int) -> Dataset:
        """One slice of one frame, ready to be saved."""
        image = Dataset()
        image.update(self._shared)
        image.update(self._origin(frame, place))
        image.SOPInstanceUID = self._instance(frame, place)
        image.InstanceNumber = frame * self._slices + place + 1
        image.ImagePositionPatient = [_ds(value) for value in self._places.corners[place]]
        image.SliceLocation = _ds(self._locations[place])
        if self._frames > 1:
            image.TemporalPositionIdentifier = frame + 1
            image.NumberOfTemporalPositions = image.CardiacNumberOfImages = self._frames
        pixels = self._data[frame, place]
        image.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        image["PixelData"].VR = "OW"
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return image

    def _origin(self, frame: int, place: int) -> Dataset:
        """What says where a slice comes from: the marks, the references, the technique."""
        real = np.flatnonzero(self._volume.acquired)
        above = int(np.searchsorted(real, place))
        acquired = bool(self._volume.acquired[place])
        parents = [above] if acquired else [above - 1, above]
        known = self._sources[frame] if self._sources else []
        headers = [known[index] for index in parents] if known else []
        # Of films, and of single frames whose sources have one.
        timed = self._frames > 1 or (bool(known) and "TriggerTime" in known[0])
        time = _ds(self._volume.frame_times[frame] * 1000) if timed else None
        if headers:
            references = [
                _reference(h.SOPClassUID, h.SOPInstanceUID, h.get("ReferencedFrameNumber"))
                for h in headers
            ]
        else:
            # Without source images, a generated slice refers to the acquired ones beside it.
            found = [] if acquired else [self._instance(frame, int(real[i])) for i in parents]
            references = [_reference(MRImageStorage, uid) for uid in found]
        image = _technique(headers[0] if headers else Dataset(), acquired, time)
        if references:
            image.SourceImageSequence = references
        if acquired:
            mark = f"acquired slice {above + 1}"
            first = "resampled in time, then " if above in self._resampled else ""
            how = f"Values of {mark} of {len(real)}, {first}{self._kept}."
        else:
            mark = f"generated by CaLID between slices {above} and {above + 1}"
            how = f"An estimate {mark} of {len(real)}. Not an observation; research use only."
            image.DerivationCodeSequence = [_code("113085", "Spatial resampling")]
        image.ImageComments = f"CaLID reconstructed series: {mark}"
        image.DerivationDescription = f"{SOFTWARE}: {how}"
        return image

    def _instance(self, frame: int, place: int) -> UID:
        return _uid(self._identity, f"image {frame} {place}")


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
