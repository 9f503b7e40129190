"""Which images of an exam count: contrast, origin, view, identity, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from faults.dicom_checks import check_is, refused, warned
from faults.dicom_writer import OBLIQUE, encoded, enhanced, image, save, short_axis
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ImplicitVRLittleEndian
from scipy.spatial.transform import Rotation

from calid.errors import GeometryError, InputError
from calid.io.dicom import read_dicom

# Dozens of exams, each read from disk by a whole command.
pytestmark = pytest.mark.slow

Change = Callable[[Dataset], None]


def changed(images: Sequence[Dataset], change: Change) -> list[Dataset]:
    for data in images:
        change(data)
    return list(images)


def private(data: Dataset, group: int, creator: str, element: int, vr: str, value: object) -> None:
    data.private_block(group, creator, create=True).add_new(element, vr, value)


def fields(**values: object) -> Change:
    def change(data: Dataset) -> None:
        for keyword, value in values.items():
            setattr(data, keyword, value)

    return change


# Contrast


def philips_inversion(data: Dataset) -> None:
    private(data, 0x2001, "Philips Imaging DD 001", 0x1C, "CS", "INV")
    private(data, 0x2001, "Philips Imaging DD 001", 0x1B, "FL", 310.0)


def ge_enhancement(data: Dataset) -> None:
    private(data, 0x0019, "GEMS_ACQU_01", 0x9C, "LO", "2dmde")


def siemens_perfusion(data: Dataset) -> None:
    private(data, 0x0021, "SIEMENS MR SDI 02", 0x75, "CS", ["ORIGINAL", "PRIMARY", "PERFUSION"])


CONTRASTS: dict[str, tuple[Change, str]] = {
    "inversion time": (fields(InversionTime=300), "inversion recovery"),
    "scanning sequence": (fields(ScanningSequence=["GR", "IR"]), "inversion recovery"),
    "Philips": (philips_inversion, "inversion recovery"),
    "GE": (ge_enhancement, "inversion recovery"),
    "Siemens": (siemens_perfusion, "perfusion"),
    "T1 map": (fields(ImageType=["DERIVED", "PRIMARY", "T1 MAP", "T1"]), "a map"),
    "flow": (fields(SequenceName="*fl2d1_v150in"), "flow"),
    "echo time": (fields(EchoTime=9.0), ""),
}


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("name", CONTRASTS)
def test_other_contrasts_on_the_planes_of_the_cine_are_left_out_by_name(
    tmp_path: Path, name: str, frames: int
) -> None:
    change, kind = CONTRASTS[name]
    cine = changed(short_axis(phases=3), fields(EchoTime=1.2, SequenceName="*tfi2d1_15"))
    if name == "GE":
        cine = changed(short_axis(), lambda d: private(d, 0x0019, "GEMS_ACQU_01", 0x9C, "LO", "b"))
    other = changed(short_axis(phases=frames, series=80), fields(TriggerTime=555))
    path = save([*changed(other, change), *cine], tmp_path, shuffle=3)
    found = warned(path, rf"1 other contrast is left out \({4 * frames} images\).*{kind}")
    check_is(found, cine, 4)
    assert any(
        "another contrast" in sentence and kind in sentence for sentence in found.report.decision
    )


ENHANCED: dict[str, tuple[str, dict[str, object]]] = {
    "inversion": ("MRModifierSequence", {"InversionRecovery": "YES", "InversionTimes": [290.0]}),
    "saturation": ("MRModifierSequence", {"SaturationRecovery": "YES"}),
    "tagging": ("MRModifierSequence", {"Tagging": "GRID"}),
    "T2 preparation": ("MRModifierSequence", {"T2Preparation": "YES"}),
    "echo": ("MREchoSequence", {"EffectiveEchoTime": 8.0}),
    "perfusion": ("MRImageFrameTypeSequence", {"AcquisitionContrast": "PERFUSION"}),
    "map": ("MRImageFrameTypeSequence", {"FrameType": ["DERIVED", "PRIMARY", "T2 MAP", "NONE"]}),
}
NO_CINE = tuple(name for name in ENHANCED if name != "echo")
"""A film of another echo time may be meant as well."""


def with_group(data: Dataset, keyword: str, **values: object) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    setattr(data.SharedFunctionalGroupsSequence[0], keyword, DicomSequence([item]))
    return data


@pytest.mark.parametrize(
    ("name", "frames"), [(name, 1) for name in ENHANCED] + [(name, 3) for name in NO_CINE]
)
def test_contrasts_of_enhanced_files(tmp_path: Path, name: str, frames: int) -> None:
    keyword, values = ENHANCED[name]
    cine = short_axis()
    plain = with_group(enhanced(cine), "MREchoSequence", EffectiveEchoTime=1.3)
    other = with_group(enhanced(short_axis(phases=frames, series=80)), keyword, **values)
    (tmp_path / "a").write_bytes(encoded(other))
    (tmp_path / "b").write_bytes(encoded(plain))
    check_is(warned(tmp_path, "1 other contrast is left out"), cine, 4)


def test_a_field_that_hides_in_a_private_sequence_of_philips(tmp_path: Path) -> None:
    cine, other = short_axis(), enhanced(short_axis(phases=1, series=80))
    for frame in other.PerFrameFunctionalGroupsSequence:
        item = Dataset()
        item.InversionTime = 280
        private(frame, 0x2005, "Philips MR Imaging DD 005", 0x0F, "SQ", DicomSequence([item]))
    (tmp_path / "a").write_bytes(encoded(enhanced(cine)))
    (tmp_path / "b").write_bytes(encoded(other))
    check_is(warned(tmp_path, "left out .*: inversion recovery"), cine, 4)


def test_private_fields_whose_type_is_not_said(tmp_path: Path) -> None:
    cine, other = short_axis(), changed(short_axis(phases=1, series=80), siemens_perfusion)
    for number, data in enumerate([*cine, *other]):
        (tmp_path / f"{number}").write_bytes(encoded(data, ImplicitVRLittleEndian))
    check_is(warned(tmp_path, "left out .*: perfusion"), cine, 4)


@pytest.mark.parametrize("all_slices", [True, False])
def test_a_contrast_agent_is_no_other_contrast(tmp_path: Path, all_slices: bool) -> None:
    images = short_axis()
    changed(images if all_slices else images[6:], fields(ContrastBolusAgent="Gadolinium"))
    check_is(read_dicom(save(images, tmp_path)), images, 4)


def test_perfusion_of_more_slices_and_frames_is_no_cine(tmp_path: Path) -> None:
    """Nothing but its times tells: they are those of one phase in many heartbeats."""
    dynamic = short_axis((2, 12, 22, 32, 42), phases=9, series=80, matrix=(14, 10))
    for data in dynamic:
        data.TriggerTime, data.TemporalPositionIdentifier = 400, data.InstanceNumber
    found = warned(save([*dynamic, *short_axis()], tmp_path), "a film over many heartbeats")
    assert found.stack.data.shape[:2] == (3, 4)


def test_enhancement_alone_is_read(tmp_path: Path) -> None:
    images = changed(short_axis(phases=1), fields(InversionTime=300))
    check_is(read_dicom(save(images, tmp_path)), images, 4)


# What counts as an MR image

CLASSES = {
    "CT": ("1.2.840.10008.5.1.4.1.1.2", "CT", r"not an MR image \(CT Image\)"),
    "segmentation": ("1.2.840.10008.5.1.4.1.1.66.4", "SEG", r"not an MR image \(Segmentation\)"),
    "screenshot": ("1.2.840.10008.5.1.4.1.1.7", "MR", "a screenshot"),
    "unknown": ("1.2.826.0.1.99", "MR", "not an MR image"),
    "modality": ("1.2.840.10008.5.1.4.1.1.4", "SEG", "by its modality"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("odd_slices", ["refuse", "leave-out"])
def test_images_of_another_class_do_not_count_whatever_their_geometry(
    tmp_path: Path, name: str, odd_slices: str
) -> None:
    kind, modality, reason = CLASSES[name]
    other = changed(short_axis(phases=4, series=80), fields(SOPClassUID=kind, Modality=modality))
    images = short_axis()
    path = save([*images, *other], tmp_path / "both", shuffle=2)
    check_is(warned(path, f"16 files are left out: .*{reason}", odd_slices=odd_slices), images, 4)
    refused(save(other, tmp_path / "alone"), InputError, f"no DICOM slice .*{reason}")


PARTS: dict[str, Change] = {
    "phase": fields(ImageType=["ORIGINAL", "PRIMARY", "P", "RETRO"]),
    "imaginary": fields(ImageType=["ORIGINAL", "PRIMARY", "I_FFE", "I", "FFE"]),
    "real": fields(ImageType=["ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE"]),
    "velocity": fields(ImageType=["DERIVED", "PRIMARY", "VELOCITY MAP", "P", "PCA"]),
    "component": fields(ComplexImageComponent="IMAGINARY"),
    "Philips": lambda d: private(d, 0x2005, "Philips MR Imaging DD 001", 0x11, "CS", "R"),
    "GE": lambda d: private(d, 0x0043, "GEMS_PARM_01", 0x2F, "SS", 3),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("odd_slices", ["refuse", "leave-out"])
def test_only_magnitude_is_read(tmp_path: Path, name: str, odd_slices: str) -> None:
    images, other = short_axis(series=5), short_axis(series=5)
    for number, data in enumerate(changed(other, PARTS[name])):
        data.InstanceNumber, data.PixelData = 100 + number, bytes(240)
    path = save([*other, *images], tmp_path, shuffle=2)
    check_is(
        warned(path, "12 images are left out: not a magnitude", odd_slices=odd_slices), images, 4
    )


def test_an_enhanced_file_of_magnitude_and_phase(tmp_path: Path) -> None:
    images = short_axis()
    data = enhanced([*images, *short_axis(series=80)])
    data.ComplexImageComponent = "MIXED"
    for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        item.ComplexImageComponent = "PHASE" if number >= len(images) else "MAGNITUDE"
        frame.MRImageFrameTypeSequence = DicomSequence([item])
    (tmp_path / "a").write_bytes(encoded(data))
    check_is(warned(tmp_path, "12 images are left out: not a magnitude"), images, 4)


COPIES: dict[str, Change] = {
    "derived": fields(ImageType=["DERIVED", "SECONDARY", "M"]),
    "derived primary": fields(ImageType=["DERIVED", "PRIMARY", "M", "MOCO"]),
    "burnt in": fields(BurnedInAnnotation="YES"),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("matrix", [(12, 10), (24, 20)])
@pytest.mark.parametrize("odd_slices", ["refuse", "leave-out"])
def test_what_was_acquired_goes_before_a_copy(
    tmp_path: Path, name: str, matrix: tuple[int, int], odd_slices: str
) -> None:
    copies = changed(short_axis(series=80, matrix=matrix), COPIES[name])
    changed(copies, fields(AcquisitionDateTime="20300101"))
    images = short_axis()
    path = save([*copies, *images], tmp_path, shuffle=2)
    check_is(warned(path, "DERIVED", odd_slices=odd_slices), images, 4)


def test_copies_are_read_where_there_is_nothing_else(tmp_path: Path) -> None:
    images = changed(short_axis(), COPIES["derived"])
    check_is(warned(save(images, tmp_path), "processed"), images, 4)


# What is left out


def test_files_and_folders_behind_links_are_read(tmp_path: Path) -> None:
    images = short_axis(phases=1)
    exam, store = tmp_path / "exam", save(images[2:], tmp_path / "store")
    save(images[:2], exam)
    first, second = sorted(store.iterdir())
    (exam / "linked series").symlink_to(first, target_is_directory=True)
    for file in second.iterdir():
        (exam / "linked.dcm").symlink_to(file)
    check_is(warned(exam, "2 links are followed out of the folder"), images, 4)


def test_links_in_a_circle_end_and_are_said(tmp_path: Path) -> None:
    images = short_axis(phases=1)
    exam = save(images, tmp_path / "exam")
    outside = tmp_path / "outside"
    outside.mkdir()
    (exam / "out").symlink_to(outside, target_is_directory=True)
    (outside / "back").symlink_to(exam, target_is_directory=True)
    (exam / "self").symlink_to(exam / "self")
    (exam / "up").symlink_to(tmp_path, target_is_directory=True)
    found = warned(exam, "2 items are left out: a link to a folder that is read already")
    check_is(found, images, 4)
    assert "a link that leads nowhere" in {left.reason for left in found.report.left_out}


def test_files_without_pixels_are_left_out_and_said(tmp_path: Path) -> None:
    images, empty = short_axis(), image(40, series=90)
    del empty.PixelData
    check_is(warned(save([*images, empty], tmp_path), "an image without pixels"), images, 4)


def test_a_slice_without_pixels_is_missed(tmp_path: Path) -> None:
    images = short_axis()
    del images[4].PixelData
    refused(save(images, tmp_path), GeometryError, "has 2 frames, not 3")


# View

AXIAL, CORONAL = np.eye(3), np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0.0]])
SAGITTAL = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0.0]])
TILTED = AXIAL @ Rotation.from_euler("x", 12, degrees=True).as_matrix()
MANY = tuple(range(0, 90, 10))


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(
    "axes", [AXIAL, CORONAL, SAGITTAL, TILTED], ids=["axial", "coronal", "sagittal", "tilted"]
)
def test_a_stack_along_the_patients_planes_yields_to_an_oblique_one(
    tmp_path: Path, axes: np.ndarray, frames: int
) -> None:
    other = short_axis(MANY, phases=frames, axes=axes, series=50)
    images = short_axis((0, 10, 20), phases=frames)
    path = save([*other, *images], tmp_path, shuffle=2)
    found = warned(path, "series 10, 11, 12 .*not series 5" if frames > 1 else "1 other view")
    check_is(found, images, 3)
    assert "an oblique stack goes before" in found.report.decision[0]


def test_an_axial_stack_alone_is_read(tmp_path: Path) -> None:
    images = short_axis(axes=AXIAL)
    check_is(read_dicom(save(images, tmp_path)), images, 4)


@pytest.mark.parametrize("heights", [(0, 10, 20, 30), (0, 10, 20, 30, 40, 50)])
def test_equal_views_are_a_question_that_lists_them(tmp_path: Path, heights) -> None:
    other = short_axis(heights, axes=OBLIQUE[:, [2, 0, 1]], series=50)
    path = save([*other, *short_axis()], tmp_path)
    error = refused(path, GeometryError, "two stacks of .*series 10, 11, 12, 13 .* degrees off")
    assert "--series 10 11 12 13" in error.remedy
    assert "--series 50" in error.remedy
    check_is(read_dicom(path, series=[10, 11, 12, 13]), short_axis(), 4)


def test_films_of_two_echo_times_are_a_question(tmp_path: Path) -> None:
    other = changed(short_axis(series=80), fields(EchoTime=8))
    path = save([*other, *changed(short_axis(), fields(EchoTime=1.3))], tmp_path)
    assert "--series 80" in refused(path, GeometryError, "two stacks of 4 slices").remedy


@pytest.mark.slow
def test_an_axial_film_beside_oblique_stills_is_a_question(tmp_path: Path) -> None:
    stills = short_axis(phases=1)
    refused(
        save([*stills, *short_axis(axes=AXIAL, series=50)], tmp_path),
        GeometryError,
        "--series|two stacks",
    )


# Identity


def resent(data: Dataset) -> Dataset:
    """The same image as another archive writes it: other bytes, same UID."""
    again = deepcopy(data)
    again.PatientComments, again.SliceThickness = "sent again", "8.00"
    return again


def test_an_image_that_was_sent_twice_counts_once(tmp_path: Path) -> None:
    images = short_axis()
    path = save([*images, *map(resent, images)], tmp_path, shuffle=2)
    check_is(warned(path, "12 files are left out: another copy of an image"), images, 4)


def test_an_enhanced_file_that_was_sent_twice_counts_once(tmp_path: Path) -> None:
    data = enhanced(short_axis())
    (tmp_path / "a").write_bytes(encoded(data))
    (tmp_path / "b").write_bytes(encoded(resent(data), ImplicitVRLittleEndian))
    check_is(warned(tmp_path, "1 file is left out: another copy"), short_axis(), 4)


def test_images_that_wrongly_share_a_uid_are_kept_and_said(tmp_path: Path) -> None:
    images = changed(short_axis(), fields(SOPInstanceUID="1.2.826.0.1.7"))
    check_is(warned(save(images, tmp_path), "11 files are of the SOPInstanceUID"), images, 4)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"SliceThickness": 40}, "SliceThickness says 40 mm, yet slices are 10 mm apart"),
        ({"SliceThickness": 120}, "SliceThickness says 120 mm"),
        ({"SpacingBetweenSlices": 5}, "SpacingBetweenSlices says 5 mm, yet slices are 10 mm"),
    ],
)
def test_positions_go_before_tags_that_contradict_them(
    tmp_path: Path, values: dict[str, object], said: str
) -> None:
    images = changed(short_axis(), fields(**values))
    found = warned(save(images, tmp_path), said)
    check_is(found, images, 4)
    np.testing.assert_allclose(found.stack.positions, [0, 10, 20, 30], atol=1e-4)
    assert found.stack.thickness == pytest.approx(10 if "SliceThickness" in values else 8)


@pytest.mark.parametrize("spacing", [10, -10, 2])
def test_a_spacing_that_agrees_is_not_said(tmp_path: Path, spacing: float) -> None:
    """Some write the space that is left between slices of 8 mm, some a negative number."""
    images = changed(short_axis(), fields(SpacingBetweenSlices=spacing))
    check_is(read_dicom(save(images, tmp_path)), images, 4)
