"""Small DICOM exams for tests: every image names a patient who must never be seen again."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.spatial.transform import Rotation

SECRETS = ("Hidden", "Person", "ID-4711", "19510203", "20240506", "Nowhere Hospital", "1.2.826.0.1")
"""Parts of what names the patient; UIDs begin with the last one."""

ROOT = "1.2.826.0.1.3680043.8.498."
OBLIQUE = Rotation.from_euler("xyz", [40, -25, 15], degrees=True).as_matrix()
"""Columns: DICOM's directions of increasing column, row and slice."""

STUDY, PLACE = generate_uid(ROOT, ["study"]), generate_uid(ROOT, ["frame of reference"])


def pattern(shape: tuple[int, int], key: int) -> NDArray[np.uint16]:
    return np.random.default_rng(key).integers(1, 900, shape).astype(np.uint16)


def image(
    height: float = 0.0,
    phase: int = 0,
    *,
    matrix: tuple[int, int] = (12, 10),
    axes: NDArray[np.float64] = OBLIQUE,
    centre: Sequence[float] = (20.0, -30.0, 40.0),
    step: float = 40.0,
    series: int = 1,
    number: int = 1,
) -> Dataset:
    """One image whose field of view is centred ``height`` mm along the normal."""
    data = Dataset()
    data.PatientName, data.PatientID = "Hidden^Person", "ID-4711"
    data.PatientBirthDate, data.StudyDate = "19510203", "20240506"
    data.InstitutionName = "Nowhere Hospital"
    data.SeriesDescription = "Hidden Person sax"
    data.Modality, data.SOPClassUID = "MR", MRImageStorage
    data.SOPInstanceUID = generate_uid(ROOT)
    data.StudyInstanceUID, data.FrameOfReferenceUID = STUDY, PLACE
    data.SeriesInstanceUID = generate_uid(ROOT, [f"series {series}"])
    data.ImageType = ["ORIGINAL", "PRIMARY", "M", "RETRO"]
    data.SeriesNumber, data.InstanceNumber = series, number
    data.Rows, data.Columns = matrix
    data.PixelSpacing, data.SliceThickness = [1.6, 1.4], 8.0
    data.ImageOrientationPatient = [round(float(v), 10) for v in axes[:, :2].T.ravel()]
    half = np.array([(matrix[1] - 1) / 2 * 1.4, (matrix[0] - 1) / 2 * 1.6, -height])
    data.ImagePositionPatient = [round(float(v), 6) for v in np.array(centre) - axes @ half]
    data.TriggerTime, data.NominalInterval = phase * step, 800
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = 0
    pixels = pattern(matrix, hash((round(height * 10), phase, series)) % 2**32)
    data.PixelData, data["PixelData"].VR = pixels.tobytes(), "OW"
    return data


def short_axis(
    heights: Sequence[float] = (0, 10, 20, 30), phases: int = 3, **options: object
) -> list[Dataset]:
    """A film, one series a slice, instance numbers in the order of acquisition."""
    return [
        image(height, phase, number=phase + 1, **{"series": 10 + place, **options})
        for place, height in enumerate(heights)
        for phase in range(phases)
    ]


def long_axis(phases: int = 3) -> list[Dataset]:
    """A 4-chamber view through the same heart."""
    turned = OBLIQUE @ Rotation.from_euler("x", 90, degrees=True).as_matrix()
    return [image(0, p, axes=turned, series=70, number=p + 1) for p in range(phases)]


def late_enhancement(
    heights: Sequence[float] = (0, 10, 20, 30), trigger: bool = True
) -> list[Dataset]:
    """One image at each place of a film, after an inversion pulse, late in the beat."""
    images = [image(height, 9, series=80, number=n + 1) for n, height in enumerate(heights)]
    for data in images:
        data.InversionTime, data.EchoTime, data.SequenceName = 300.0, 3.2, "*tfl2d1_23"
        if not trigger:
            del data.TriggerTime
    return images


def pixels(data: Dataset) -> NDArray[np.uint16]:
    return np.frombuffer(data.PixelData, "<u2").reshape(data.Rows, data.Columns)


def encoded(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    data = deepcopy(data)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.get("SOPClassUID", MRImageStorage)
    data.file_meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID", generate_uid(ROOT))
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def save(images: Sequence[Dataset], folder: Path, shuffle: int | None = None) -> Path:
    """One file an image, in folders by series, under names that sort in another order."""
    order = np.random.default_rng(shuffle).permutation(len(images))
    for name, data in zip(order, images, strict=True):
        place = folder / f"Hidden_Person_{data.get('SeriesNumber', 0)}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"IM{name:05d}").write_bytes(encoded(data))
    return folder


def save_zip(images: Sequence[Dataset], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(images):
            archive.writestr(f"Hidden_Person/{number}.dcm", encoded(data))
    return path


def enhanced(images: Sequence[Dataset]) -> Dataset:
    """The same images as one file with functional groups."""
    first = images[0]
    data = deepcopy(first)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
                    "SliceThickness", "TriggerTime", "InstanceNumber"):  # fmt: skip
        delattr(data, keyword)
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"  # Enhanced MR Image Storage
    data.InstanceNumber, data.NumberOfFrames = 1, len(images)

    def item(**fields: object) -> DicomSequence:
        inner = Dataset()
        for keyword, value in fields.items():
            setattr(inner, keyword, value)
        return DicomSequence([inner])

    shared = Dataset()
    shared.PixelMeasuresSequence = item(
        PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness
    )
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=first.ImageOrientationPatient)
    data.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames = []
    for number, source in enumerate(images):
        own = Dataset()
        own.PlanePositionSequence = item(ImagePositionPatient=source.ImagePositionPatient)
        own.CardiacSynchronizationSequence = item(
            NominalCardiacTriggerDelayTime=float(source.TriggerTime)
        )
        own.FrameContentSequence = item(FrameAcquisitionNumber=number + 1)
        own.PixelValueTransformationSequence = item(
            RescaleSlope=source.get("RescaleSlope", 1), RescaleIntercept=0, RescaleType="US"
        )
        frames.append(own)
    data.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    data.PixelData = b"".join(i.PixelData for i in images)
    data["PixelData"].VR = "OW"
    return data
