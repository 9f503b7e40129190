"""Volumes and sources' headers for the tests of DICOM output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, generate_uid
from scipy.spatial.transform import Rotation

from calid.stack import Volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def make_volume(
    affine: np.ndarray | None = None,
    data: np.ndarray | None = None,
    frames: int = 1,
    **others: object,
) -> Volume:
    """Seven slices of 4 x 6 pixels, every third acquired."""
    affine = np.diag([-1.25, -1.5, 2.5, 1.0]) if affine is None else affine
    if data is None:
        data = np.random.default_rng(0).integers(-50, 900, (frames, 7, 4, 6)).astype(np.int16)
    step = np.linalg.norm(affine[:3, 2])
    return Volume(
        data=data,
        affine=affine,
        positions=np.arange(7) * step,
        acquired=np.arange(7) % 3 == 0,
        frame_times=np.arange(len(data)) * 0.04 + 0.01,
        rank=3 if len(data) == 1 else 4,
        **others,
    )


def make_headers(volume: Volume, start: float = 0.0) -> list[list[Dataset]]:
    """What a scanner would have said about the acquired slices, against their order here."""
    axes = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    headers = []
    study, place, series = (str(generate_uid()) for _ in range(3))
    for frame in range(volume.data.shape[0]):
        row = []
        for position in volume.positions[volume.acquired][::-1]:
            header = Dataset()
            header.SpecificCharacterSet = "ISO_IR 192"
            header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, generate_uid()
            header.StudyInstanceUID, header.FrameOfReferenceUID = study, place
            header.SeriesInstanceUID, header.SeriesNumber = series, 12
            header.SeriesDescription = "cine SA"
            header.PatientName, header.PatientID = "Müller^Jörg", "4711"
            header.PatientBirthDate, header.StudyDate, header.StudyTime = "19500203", "20240101", ""
            header.PatientComments = header.ImageComments = "free text"
            header.OperatorsName, header.InstitutionName = "Operator", "Hospital"
            header.Manufacturer, header.MagneticFieldStrength = "Scanner Ltd", "1.5"
            header.ScanningSequence, header.SequenceVariant = "GR", "SK"
            header.RepetitionTime = f"{30 + len(row)}"
            header.AcquisitionTime = f"1200{frame:02d}"
            header.private_block(0x0021, "VENDOR", create=True).add_new(1, "LO", "secret")
            corner = RAS_TO_LPS @ (volume.affine[:3, 3] + axes[:, 2] * (position - start))
            header.ImagePositionPatient = [round(value, 4) for value in corner]
            row.append(header)
        headers.append(row)
    return headers


def written(folder: Path) -> list[Dataset]:
    """Every file, every value checked against its type."""
    images = []
    for path in sorted(folder.iterdir()):
        image = pydicom.dcmread(path)
        for element in image.iterall():
            pydicom.DataElement(
                element.tag, element.VR, element.value, validation_mode=pydicom.config.RAISE
            )
        images.append(image)
    return images


def affine_of(images: list[Dataset]) -> np.ndarray:
    """RAS+ affine from the standard's formula."""
    first, last = images[0], images[-1]
    row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    origin, end = (np.array(i.ImagePositionPatient, float) for i in (first, last))
    affine = np.eye(4)
    affine[:3, 0] = row * float(first.PixelSpacing[1])
    affine[:3, 1] = column * float(first.PixelSpacing[0])
    affine[:3, 2] = (end - origin) / (len(images) - 1)
    affine[:3, 3] = origin
    affine[:3] = RAS_TO_LPS @ affine[:3]
    return affine


def oblique() -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [33.0, -21.0, 57.0], degrees=True).as_matrix()
    affine[:3, :3] = turn * [1.37, 1.52, 2.9]
    affine[:3, 3] = [-101.5, 33.25, -7.125]
    return affine


AFFINES = {
    "axial": np.diag([-1.25, -1.5, 2.5, 1.0]),
    "left-handed": np.diag([-1.25, -1.5, -2.5, 1.0]),
    "oblique": oblique(),
    "oblique, slices downwards": oblique() @ np.diag([1.0, 1.0, -1.0, 1.0]),
    "transposed": oblique()[:, [1, 0, 2, 3]],
    "mirrored": oblique() @ np.diag([-1.0, 1.0, 1.0, 1.0]),
}
