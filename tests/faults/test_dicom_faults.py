from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults.dicom_writer import (
    OBLIQUE,
    SECRETS,
    encoded,
    image,
    long_axis,
    pixels,
    save,
    save_zip,
    short_axis,
)
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from scipy.spatial.transform import Rotation

from calid.errors import CalidError, CalidWarning, GeometryError, InputError, IntensityError
from calid.io import read
from calid.io.archive import Limits, members
from calid.io.dicom import DicomStack, read_dicom


def refused(path: Path, kind: type[CalidError], match: str, **options: object) -> CalidError:
    """Reading raises one typed error that names the input and nobody else, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind, match=match) as caught:
            read_dicom(path, **options)
    error = caught.value
    assert type(error) is kind
    assert error.subject == str(path)
    assert error.remedy
    for secret in SECRETS:
        assert secret not in f"{error.rule} {error.remedy}"
    return error


def check_is(found: DicomStack, images: list[Dataset], slices: int) -> None:
    """Pixels stand where their headers say, whatever the order they came in."""
    frames = len(images) // slices
    for number, data in enumerate(images):
        slice_, frame = divmod(number, frames)
        np.testing.assert_array_equal(found.stack.data[frame, slice_], pixels(data))


# 19: scrambled order, one series a slice, cine, other views in the folder


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_instance_numbers_and_file_names_do_not_matter(tmp_path, seed):
    images = short_axis()
    numbers = np.random.default_rng(seed + 100).permutation(len(images))
    for data, number in zip(images, numbers, strict=True):
        data.InstanceNumber = int(number)
    found = read_dicom(save(images, tmp_path / "exam", shuffle=seed))
    assert found.stack.shape == (3, 4, 12, 10)
    check_is(found, images, 4)
    np.testing.assert_allclose(found.stack.positions, [0, 10, 20, 30], atol=1e-4)
    np.testing.assert_allclose(found.stack.frame_times, [0, 0.04, 0.08])


def test_one_series_for_all_slices_is_the_same(tmp_path):
    images = short_axis(series=5)
    found = read_dicom(save(images, tmp_path, shuffle=1))
    check_is(found, images, 4)


@pytest.mark.parametrize("first", [True, False])
def test_long_axis_views_are_left_out_and_said_so(tmp_path, first):
    images, views = short_axis(), long_axis()
    save(views + images if first else images + views, tmp_path, shuffle=3)
    with pytest.warns(CalidWarning, match=r"1 other view is left out \(3 images\)"):
        found = read_dicom(tmp_path)
    check_is(found, images, 4)
    (view,) = found.report.left_out
    assert (view.reason, view.images, view.planes, view.angle_deg) == ("another view", 3, 1, 90)
    assert view.series == (70,)


def test_a_stack_that_another_sequence_planned_is_left_out(tmp_path):
    images = short_axis()
    other = short_axis((1, 11, 21), phases=1, matrix=(24, 20), series=50)
    with pytest.warns(CalidWarning, match="1 other view"):
        found = read_dicom(save(images + other, tmp_path))
    check_is(found, images, 4)
    assert found.report.left_out[0].reason == "another stack"


def test_names_of_series_play_no_part(tmp_path):
    images, views = short_axis(), long_axis()
    for data in images:
        data.SeriesDescription = "4ch"
    for data in views:
        data.SeriesDescription = "sax"
    with pytest.warns(CalidWarning, match="1 other view"):
        check_is(read_dicom(save(images + views, tmp_path)), images, 4)


def test_a_film_goes_before_a_still_of_as_many_slices(tmp_path):
    still = short_axis((0, 10, 20, 30), phases=1, matrix=(24, 20), series=50)
    with pytest.warns(CalidWarning, match="1 other view"):
        assert read_dicom(save(still + short_axis(), tmp_path)).stack.n_frames == 3


def test_a_film_goes_before_a_scout_of_the_whole_chest(tmp_path):
    scout = short_axis(range(0, 120, 10), phases=1, axes=OBLIQUE[:, [2, 0, 1]], series=50)
    with pytest.warns(CalidWarning, match=r"1 other view is left out \(12 images\)"):
        assert read_dicom(save(scout + short_axis(), tmp_path)).stack.shape[:2] == (3, 4)


@pytest.mark.parametrize(
    ("heights", "phases"),
    [((10,), 3), ((5, 25), 1), ((5, 25), 8), ((90,), 3)],
    ids=["at a slice", "stills", "perfusion", "far away"],
)
def test_images_that_fill_no_hole_of_the_stack_are_left_out(tmp_path, heights, phases):
    other = short_axis(heights, phases=phases, matrix=(24, 20), series=50)
    with pytest.warns(CalidWarning, match="1 other view"):
        found = read_dicom(save(short_axis() + other, tmp_path))
    assert found.stack.shape[:2] == (3, 4)
    assert found.report.left_out[0].reason == "other images near the stack"


def test_two_stacks_of_equal_size_are_refused(tmp_path):
    other = short_axis(axes=OBLIQUE[:, [2, 0, 1]], series=50)
    refused(save(short_axis() + other, tmp_path), GeometryError, "two stacks of 4 slices")


def test_two_exams_are_refused(tmp_path):
    images = short_axis()
    images[-1].PatientID = "another"
    refused(save(images, tmp_path), InputError, "of 2 exams")


# 20: unequal gaps


@pytest.mark.parametrize(
    ("heights", "match"),
    [
        ((0, 10, 20, 40), r"gaps between slices are 10 to 20 mm. Is a slice missing\?"),
        ((0, 8, 20, 28), r"8 to 12 mm. Is"),
        ((0, 10.3, 19.7, 30.1), r"9.4 to 10.4 mm.$"),
    ],
)
def test_true_positions_are_kept(tmp_path, heights, match):
    images = short_axis(heights)
    with pytest.warns(CalidWarning, match=match):
        found = read_dicom(save(images, tmp_path, shuffle=2))
    np.testing.assert_allclose(found.stack.positions, heights, atol=1e-4)
    check_is(found, images, 4)
    assert np.linalg.norm(found.stack.affine[:3, 2]) == pytest.approx(heights[-1] / 3, abs=1e-4)


# 21: slices that do not fit the others


def twice(images: list[Dataset]) -> list[Dataset]:
    return images + [image(10, p, series=50, number=p + 1) for p in range(3)]


def twice_nearly(images: list[Dataset]) -> list[Dataset]:
    return images + [image(10.4, p, series=50, number=p + 1) for p in range(3)]


def turned(images: list[Dataset]) -> list[Dataset]:
    axes = OBLIQUE @ Rotation.from_euler("x", 5, degrees=True).as_matrix()
    return images[:6] + [image(20, p, axes=axes, series=12) for p in range(3)] + images[9:]


def turned_in_plane(images: list[Dataset]) -> list[Dataset]:
    axes = OBLIQUE @ Rotation.from_euler("z", 5, degrees=True).as_matrix()
    return images[:6] + [image(20, p, axes=axes, series=12) for p in range(3)] + images[9:]


def other_matrix(images: list[Dataset]) -> list[Dataset]:
    return images[:6] + [image(20, p, matrix=(14, 10), series=12) for p in range(3)] + images[9:]


def other_pixels(images: list[Dataset]) -> list[Dataset]:
    for data in images[6:9]:
        data.PixelSpacing = [1.2, 1.2]
    return images


def shifted(images: list[Dataset]) -> list[Dataset]:
    centre = np.array([20, -30, 40]) + OBLIQUE @ [6, 0, 0]
    return images[:6] + [image(20, p, centre=centre, series=12) for p in range(3)] + images[9:]


def frame_missing(images: list[Dataset]) -> list[Dataset]:
    return images[:7] + images[8:]


def frames_apart(images: list[Dataset]) -> list[Dataset]:
    return [*images[:8], image(20.5, 2, series=12), *images[9:]]


ODD = [
    (twice, r"slice at 10.0 mm \(series 11, 50\) has 3 images of the same time as others", 4),
    (twice_nearly, r"slice at 10.2 mm .* has 3 images of the same time", 4),
    (turned, r"1 slice \(3 images, series 12\) is turned by 5.0 degrees", 3),
    (turned_in_plane, r"series 12\) is turned by 5.0 degrees", 3),
    (other_matrix, r"series 12\) has a matrix of 14x10, not 12x10", 3),
    (other_pixels, r"has pixels of 1.2 x 1.2 mm, not 1.6 x 1.4 mm", 3),
    (shifted, r"is shifted by 6 mm within its plane", 3),
    (frame_missing, r"slice at 20.0 mm \(series 12\) has 2 frames, not 3", 3),
    (frames_apart, r"slice at 20.0 mm .* has images up to 0.5 mm apart", 3),
]


@pytest.mark.parametrize(("damage", "match", "left"), ODD, ids=[d[0].__name__ for d in ODD])
def test_odd_slices_are_refused_unless_they_may_be_left_out(
    tmp_path, damage: Callable[[list[Dataset]], list[Dataset]], match, left
):
    path = save(damage(short_axis()), tmp_path, shuffle=5)
    error = refused(path, GeometryError, match)
    assert "--odd-slices leave-out" in error.remedy
    with pytest.warns(CalidWarning) as caught:
        found = read_dicom(path, odd_slices="leave-out")
    assert any("left out: " in str(w.message) for w in caught)
    assert found.stack.n_slices == left
    assert found.stack.n_frames == 3
    assert len(found.report.left_out) == 1
    places = {4: [0, 10, 20, 30], 3: [0, 10, 30]}[left]
    np.testing.assert_allclose(found.stack.positions, places, atol=0.41)
    assert found.report.problems == []


def test_of_a_repeated_slice_the_later_series_is_kept(tmp_path):
    images = twice(short_axis())
    with pytest.warns(CalidWarning, match="of the same time"):
        found = read_dicom(save(images, tmp_path), odd_slices="leave-out")
    np.testing.assert_array_equal(found.stack.data[0, 1], pixels(images[12]))
    assert found.report.kept[1].series == (50,)


def test_many_odd_slices_are_not_all_listed(tmp_path):
    images = short_axis((0, 10, 20, 30, 40, 50, 60, 70, 80, 90))
    for place in (1, 3, 5, 7):
        images[place * 3].ImagePositionPatient = images[-1].ImagePositionPatient
    error = refused(save(images, tmp_path), GeometryError, r"And 2 more\.")
    assert error.rule.count("has") <= 4


def test_too_few_slices_left_are_no_stack(tmp_path):
    images = short_axis((0, 10, 20))[:-2]
    images[0].TriggerTime = images[1].TriggerTime
    refused(save(images, tmp_path), GeometryError, "at least 2", odd_slices="leave-out")


def test_an_exact_copy_is_no_second_slice(tmp_path):
    images = short_axis()
    found = read_dicom(save([*images, images[4]], tmp_path))
    check_is(found, images, 4)
    assert [v.reason for v in found.report.left_out] == ["an exact copy of another file"]


def test_slices_of_one_place_are_no_stack(tmp_path):
    refused(save(short_axis([0]), tmp_path), GeometryError, "at least 2 parallel slices")


# 22: archives that harm


def evil_zip(path: Path, name: str, link: bool = False) -> Path:
    save_zip(short_axis(phases=1), path)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(name)
        if link:
            info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return path


@pytest.mark.parametrize(
    "name", ["../escaped.dcm", "a/../../escaped.dcm", "/tmp/escaped.dcm", "C:\\escaped.dcm",
             "a\\..\\..\\escaped.dcm"]
)  # fmt: skip
def test_names_that_lead_out_of_a_zip(tmp_path, name):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    refused(evil_zip(inside / "exam.zip", name), InputError, "leads out of the zip")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["exam.zip"]


def test_a_link_in_a_zip(tmp_path):
    refused(evil_zip(tmp_path / "exam.zip", "link.dcm", link=True), InputError, "symbolic link")


def test_a_zip_writes_nothing_anywhere(tmp_path, monkeypatch):
    path = save_zip(short_axis(phases=1), tmp_path / "exam.zip")
    real = os.open
    opened = []

    def spy(file, flags, *rest, **more):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            opened.append(file)
        return real(file, flags, *rest, **more)

    monkeypatch.setattr(os, "open", spy)
    monkeypatch.setattr("tempfile.mkdtemp", lambda *a, **k: pytest.fail("temporary folder"))
    assert read(path).n_slices == 4
    assert opened == []


def test_a_bomb_of_one_file(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(20 * 2**20))
    refused(path, InputError, "more than 200 times")


def test_a_bomb_of_many_files(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"{number}.dcm", bytes(2**20))
    refused(path, InputError, "more than 200 times")


def test_a_zip_larger_than_allowed(tmp_path):
    path = save_zip(short_axis(), tmp_path / "exam.zip")
    refused(path, InputError, "are allowed", max_bytes=1000)


def test_more_files_than_allowed(tmp_path):
    path = save_zip(short_axis(), tmp_path / "exam.zip")
    for source in (path, save(short_axis(), tmp_path / "exam")):
        with pytest.raises(InputError, match="holds 12 files"), members(source, Limits(files=11)):
            pass


def test_an_encrypted_zip(tmp_path):
    path = save_zip(short_axis(), tmp_path / "exam.zip")
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = content.find(mark)
        content[place + offset] |= 1
    path.write_bytes(content)
    refused(path, InputError, "encrypted")


def test_a_damaged_zip(tmp_path):
    path = save_zip(short_axis(), tmp_path / "exam.zip")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    refused(path, InputError, "damaged or cut off")
    content[200] ^= 0xFF
    path.write_bytes(content)
    refused(path, InputError, "damaged")
    path.write_bytes(b"no zip at all")
    refused(path, InputError, "not a zip")


def test_a_zip_within_a_zip_is_not_opened(tmp_path):
    inner = save_zip(short_axis((0, 10)), tmp_path / "inner.zip")
    path = save_zip(short_axis(), tmp_path / "outer.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(inner, "more.zip")
    found = read_dicom(path)
    assert found.stack.n_slices == 4
    assert [v.reason for v in found.report.left_out] == ["not DICOM"]


def test_a_dicomdir_leads_nowhere(tmp_path):
    images = short_axis(phases=1)
    outside = tmp_path / "outside.dcm"
    outside.write_bytes(encoded(image(40)))
    folder = save(images, tmp_path / "exam")
    record, directory = Dataset(), Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the writer sees through it
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = ["..", "outside.dcm"]
        directory.SOPClassUID = "1.2.840.10008.1.3.10"
        directory.DirectoryRecordSequence = [record]
        (folder / "DICOMDIR").write_bytes(encoded(directory))
    found = read_dicom(folder)
    assert found.stack.n_slices == 4
    assert found.report.left_out[0].reason == "a DICOMDIR, which is not needed"


def test_links_out_of_a_folder_are_not_followed(tmp_path):
    folder = save(short_axis(phases=1), tmp_path / "exam")
    outside = tmp_path / "outside.dcm"
    outside.write_bytes(encoded(image(40)))
    (folder / "link.dcm").symlink_to(outside)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    found = read_dicom(folder)
    assert found.stack.n_slices == 4
    assert [v.reason for v in found.report.left_out] == ["a link that leads out of the folder"]


def test_a_pipe_in_a_folder_does_not_hang(tmp_path):
    folder = save(short_axis(phases=1), tmp_path / "exam")
    os.mkfifo(folder / "pipe.dcm")
    assert read_dicom(folder).stack.n_slices == 4


# Damaged and strange files


def test_an_empty_folder(tmp_path):
    refused(tmp_path, InputError, "no DICOM slice in 0 files")


def test_a_missing_path(tmp_path):
    refused(tmp_path / "nothing", InputError, "no such file")


def test_files_that_are_not_dicom(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("Hidden Person, 19510203")
    (tmp_path / "old").write_bytes(b"\x08\x00" + bytes(range(256)))
    refused(tmp_path, InputError, "no DICOM slice in 3 files")
    refused(tmp_path / "notes.txt", InputError, "no DICOM slice in 1 file")


def test_a_file_cut_within_its_header(tmp_path):
    content = encoded(image())
    (tmp_path / "a.dcm").write_bytes(content[: content.find(b"MONOCHROME2") - 40])
    save(short_axis(), tmp_path)
    refused(tmp_path, InputError, "no valid|damaged")


@pytest.mark.parametrize(
    "field",
    ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"],
)
def test_missing_geometry_is_never_guessed(tmp_path, field):
    images = short_axis()
    delattr(images[5], field)
    refused(save(images, tmp_path), InputError, f"has no valid .*{field}")


@pytest.mark.parametrize(
    ("field", "value"),
    [("PixelSpacing", [0, 1]), ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), ("Rows", 0)],
)
def test_impossible_geometry(tmp_path, field, value):
    images = short_axis()
    setattr(images[5], field, value)
    refused(save(images, tmp_path), GeometryError, "impossible orientation, matrix or pixel")


def test_pixels_that_are_cut_off(tmp_path):
    images = short_axis()
    content = encoded(images[5])
    save(images[:5] + images[6:], tmp_path)
    (tmp_path / "cut.dcm").write_bytes(content[:-30])
    refused(tmp_path, InputError, "cut off|damaged")


def test_an_encoding_that_cannot_be_decoded(tmp_path):
    from pydicom.encaps import encapsulate

    images = short_axis(phases=1)
    for number, data in enumerate(images):
        data.PixelData = encapsulate([b"\xff\x4f\xff\x51 not really a codestream"])
        data["PixelData"].is_undefined_length = True
        data["PixelData"].VR = "OB"
        (tmp_path / f"{number}.dcm").write_bytes(encoded(data, JPEG2000Lossless))
    error = refused(tmp_path, InputError, "JPEG 2000")
    assert "Decompress" in error.remedy


def test_run_length_encoding_is_decoded(tmp_path):
    images = short_axis(phases=1)
    for number in range(4):
        packed = image(10.0 * number, series=10 + number)
        packed.file_meta = FileMetaDataset()
        packed.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        packed.compress(RLELossless, generate_instance_uid=False)
        (tmp_path / f"{number}.dcm").write_bytes(encoded(packed, RLELossless))
    check_is(read_dicom(tmp_path), images, 4)


def test_a_deflated_data_set_is_refused_before_it_grows(tmp_path):
    (tmp_path / "a.dcm").write_bytes(encoded(image(), DeflatedExplicitVRLittleEndian))
    refused(tmp_path, InputError, "deflated")


@pytest.mark.parametrize(
    ("field", "value", "kind", "match"),
    [
        ("PhotometricInterpretation", "MONOCHROME1", IntensityError, "MONOCHROME2"),
        ("RescaleSlope", 0, IntensityError, "rescale slope of 0"),
        ("BitsAllocated", 1, InputError, "8, 16 or 32 bits"),
        ("Rows", 13, InputError, "cut off"),
    ],
)
def test_pixels_that_are_no_grey_values(tmp_path, field, value, kind, match):
    images = short_axis()
    for data in images:
        setattr(data, field, value)
    refused(save(images, tmp_path), kind, match)


def test_a_header_that_claims_too_much(tmp_path):
    images = short_axis()
    for data in images:
        data.Rows = data.Columns = 65535
    refused(save(images, tmp_path), InputError, "claim 96.0 GiB")


def test_a_header_that_claims_too_many_frames(tmp_path):
    data = image()
    data.NumberOfFrames = 2_000_000_000
    (tmp_path / "a.dcm").write_bytes(encoded(data))
    refused(tmp_path, InputError, "claims 2000000000 frames")


def test_what_shows_no_slice_is_left_out(tmp_path):
    images = short_axis()
    phase, colour, shot, report = image(10), image(20), image(30), Dataset()
    phase.ImageType = ["DERIVED", "PRIMARY", "P", "RETRO"]
    colour.SamplesPerPixel = 3
    shot.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    del shot.ImagePositionPatient
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    found = read_dicom(save([*images, phase, colour, shot, report], tmp_path))
    check_is(found, images, 4)
    assert {v.reason for v in found.report.left_out} == {
        "not a magnitude image (phase or velocity)",
        "a colour image",
        "a screenshot",
        "DICOM without an image",
    }


def test_flipped_bits_never_end_in_a_traceback(tmp_path, caplog):
    """Any byte may be wrong: the answer is a stack or a typed error that names nobody."""
    images = short_axis((0, 10), phases=1)
    good = encoded(images[1])
    save(images[:1], tmp_path)
    generator, said = np.random.default_rng(0), ""
    for _ in range(100):
        content = bytearray(good)
        for place in generator.integers(128, len(good) - 240, 3):
            content[place] = generator.integers(256)
        (tmp_path / "b.dcm").write_bytes(content)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                read(tmp_path)
            except CalidError as error:
                said += f"{error.rule} {error.remedy}"
        said += "".join(str(w.message) for w in caught)
        assert all(issubclass(w.category, CalidWarning) for w in caught)
    assert not caplog.records
    assert not any(secret in said for secret in SECRETS)
    assert "damaged" in said
