"""What a derived image carries over from its sources, and what is its own.

Nothing of a source's header is kept but the attributes listed here: no private ones, no
operators, no free-text comments. Patient and study are kept because a derived series has to be
filed with its study; de-identify the source first if the output is to be shared.
"""

from __future__ import annotations

from copy import copy
from importlib.metadata import version

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

__all__ = ["SOFTWARE", "code", "own_study", "reference", "series_level", "technique"]

SOFTWARE = f"calid {version('calid')}"

PATIENT_AND_STUDY = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "PatientPosition",
    "BodyPartExamined",
)
"""Equal in all slices of a stack; taken from its first."""

TECHNIQUE = (
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "MRAcquisitionType",
    "RepetitionTime",
    "EchoTime",
    "EchoTrainLength",
    "InversionTime",
    "FlipAngle",
    "MagneticFieldStrength",
    "ImagingFrequency",
    "ImagedNucleus",
    "NumberOfAverages",
    "PixelBandwidth",
    "NominalInterval",
    "HeartRate",
    "BurnedInAnnotation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""How a slice was acquired; a generated one has it from the slice below."""

ACQUISITION = ("AcquisitionDate", "AcquisitionTime", "AcquisitionNumber")
"""When a slice was acquired; a generated one was not."""

_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "PatientPosition",
)


def series_level(source: Dataset) -> Dataset:
    """Attributes that all images of the derived series share.

    Parameters
    ----------
    source
        Any of the sources' headers, or what `own_study` gives.
    """
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
        scanner.PurposeOfReferenceCodeSequence = [code("109101", "Acquisition Equipment")]
        image.ContributingEquipmentSequence = [scanner]
    image.ContentDate = image.ContentTime = ""
    return image


def technique(source: Dataset, acquired: bool, trigger_time: str | None) -> Dataset:
    """Attributes of one slice's acquisition; an unknown sequence is marked as research.

    Parameters
    ----------
    acquired
        Whether it is for the slice itself; else for one that was generated above it.
    trigger_time
        ms after the R wave; none if it was not gated.
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


def own_study(study: str, frame_of_reference: str, patient: str) -> Dataset:
    """Stand-in for a source's header where there is none: a new study of nobody.

    Parameters
    ----------
    patient
        Identifier, so that archives do not file different hearts as one.
    """
    source = Dataset()
    source.PatientName, source.PatientID = "CaLID^Anonymous", patient
    source.StudyID = "1"
    source.StudyInstanceUID, source.FrameOfReferenceUID = study, frame_of_reference
    return source


def reference(sop_class: str, instance: str, frame: int | None = None) -> Dataset:
    """One item of SourceImageSequence; the frame's number, from 1, if it has several."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
    if frame is not None:
        item.ReferencedFrameNumber = frame
    purpose = code("121322", "Source image for image processing operation")
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def code(value: str, meaning: str) -> Dataset:
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
