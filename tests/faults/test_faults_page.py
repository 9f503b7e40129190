"""The page on faults, row by row: what it promises is what the commands do."""

from __future__ import annotations

import ast
import os
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from command_line import run
from faults.dicom_writer import OBLIQUE, late_enhancement, long_axis, short_axis
from faults.dicom_writer import save as save_dicom
from faults.test_dicom_encodings import HIGH_THROUGHPUT, LOSSLESS, LOSSY, UNREAD, cut_off, exam
from faults.test_dicom_faults import ODD, two_stacks
from faults.test_dicom_file_faults import evil_zip
from faults.test_dicom_images import CLASSES, COPIES, PARTS, Change, changed, fields, resent
from faults.test_nifti_faults import FAULTS, nifti
from faults.test_odd_inputs import voxels
from faults.test_weights_faults import trap
from nifti_files import AFFINE, save

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reference" / "faults.md"

Input = Callable[[Path], Path]
"""Makes an input in an empty folder and tells its path."""


def known(*faults: str) -> list[Input]:
    """Files that are described elsewhere."""

    def maker(name: str, content: bytes | None) -> Input:
        def make(folder: Path) -> Path:
            if content is not None:
                (folder / name).write_bytes(content)
            return folder / name

        return make

    return [maker(*FAULTS[fault][:2]) for fault in faults]


def header(**fields: object) -> Input:
    def make(folder: Path) -> Path:
        (folder / "a.nii").write_bytes(nifti(**({"at256_f4": [0, 0, 1]} | fields)))  # type: ignore[arg-type]
        return folder / "a.nii"

    return make


def sound(data: np.ndarray, *steps: float, **fields: object) -> Input:
    affine = np.diag([*steps, 1.0]) if steps else AFFINE
    return lambda folder: save(folder / "a.nii", data, affine, **fields)


def padded() -> np.ndarray:
    """Voxels in a frame of a constant far below them."""
    data = np.random.default_rng(0).integers(0, 300, (24, 24, 4)).astype(np.int16)
    data[:3], data[:, -3:] = -32768, -32768
    return data


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.nii")
    return folder / "a.nii"


def oblique(folder: Path) -> Path:
    affine = np.diag([1.37, 0.91, 9.3, 1.0])
    angle = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    affine[:3, :3] = angle[:, [0, 2, 1]] @ angle @ affine[:3, :3]
    return save(folder / "a.nii", voxels(37, 23, 3), affine)


def weights(write: Callable[[Path], object]) -> Input:
    def make(folder: Path) -> Path:
        write(folder / "default.safetensors")
        return folder

    return make


def others() -> list[Change]:
    """What makes an image one of another class."""
    return [fields(SOPClassUID=kind, Modality=name) for kind, name, _ in CLASSES.values()]


def linked(folder: Path) -> Path:
    path, store = folder / "exam", save_dicom(short_axis(), folder / "store")
    path.mkdir()
    for number, series in enumerate(sorted(store.iterdir())):
        (path / str(number)).symlink_to(series, target_is_directory=True)
    (path / "circle").symlink_to(path, target_is_directory=True)
    return path


HUGE = np.diag([-1500.0, -1250.0, 8000.0]).diagonal()
FLAT = voxels(6, 5, 3)
FLAT[..., 1] = 0

READ: MappingProxyType[str, list[Input]] = MappingProxyType(
    {
        "missing, empty, or not what its name says": known(
            "missing", "zero bytes", "not gzip", "gzip named nii", "not nifti", "wrong suffix"
        ),
        "cut off, `.nii` or `.nii.gz`": known(
            "truncated", "truncated gz", "truncated inside gz", "header only"
        ),
        "a flipped bit or a bad checksum in `.nii.gz`": known("flipped bit", "bad checksum"),
        "a header that claims more voxels than the file can hold, or than `--max-bytes` allows": (
            known("claims 10 GB", "claims 1 GB")
        ),
        "a gzip bomb, or more than 1 MiB of zeros after the end of the gzip stream": known(
            "bomb", "zeros after gz"
        ),
        "voxels in another file (`.hdr` and `.img`)": known("pair"),
        "a folder, a pipe, a name that is too long": [
            lambda folder: folder,
            pipe,
            lambda folder: folder / f"{'a' * 300}.nii",
        ],
        "one slice, or a 2D image": known("one slice", "one slice, cine", "2D"),
        "an axis of size zero or less": known("empty axis", "negative axis", "no axes"),
        "more than four axes with a size above 1": known("five axes"),
        "time on the fifth axis, behind one of size 1": [sound(voxels(6, 5, 3, 1, 4))],
        "four axes and one frame, or further axes of size 1": [
            sound(voxels(6, 5, 4, 1)),
            header(dim=(6, 5, 4, 1, 1)),
        ],
        "sform and pixdim disagree": [header(at80_f4=[1.8, 1.8, 10])],
        "sform and qform disagree": [header(at252_i2=1, at268_f4=9.0)],
        "neither sform nor qform": [header(at254_i2=0)],
        "sheared, singular, infinite or not-a-number affine": known(
            "nan affine", "singular affine", "sheared affine", "affine beyond a kilometre"
        ),
        "slices from head to feet, left-handed affine": [
            sound(voxels(6, 5, 4), -1.5, -1.25, -8.0),
            sound(voxels(6, 5, 4), 1.5, -1.25, 8.0),
        ],
        "metres or microns": [
            sound(voxels(6, 5, 4), -1500.0, -1250.0, 8000.0, xyzt_units=3 + 8),
            sound(voxels(6, 5, 4), -0.0015, -0.00125, 0.008, xyzt_units=1 + 8),
        ],
        "units that are not said": [sound(voxels(6, 5, 4), xyzt_units=0)],
        "units that are not said, in a heart of another size": [
            sound(voxels(6, 5, 4), *HUGE, xyzt_units=0)
        ],
        "slices along another axis than the third, as the shape of the pixels shows": [
            sound(voxels(6, 5, 4), 1.5, 8.0, 1.25),
            sound(voxels(6, 5, 4), 8.0, 1.5, 1.25),
        ],
        "odd sizes, non-square pixels, oblique planes": [oblique],
        "not a number, or infinite": known("nan", "inf"),
        "colours or complex numbers": known("rgb", "complex"),
        "values, stored or scaled, beyond single precision": known(
            "beyond single precision", "beyond single precision once scaled"
        ),
        "a constant volume": [sound(np.full((6, 5, 3), 7, "i2"))],
        "constant slices": [sound(FLAT)],
        "whole numbers below 8 only, as label maps have": [
            sound(voxels(6, 5, 4) % 4),
            sound((voxels(6, 5, 4) % 4).astype("f4")),
        ],
        "uint16 above 32767, wide integers, slope and intercept": [
            sound((voxels(6, 5, 4) * 160).astype("u2")),
            sound(voxels(6, 5, 4).astype("i8")),
            header(at112_f4=[0.25, -7.5]),
        ],
        "time between frames": [sound(voxels(6, 5, 3, 4), dt=0.03)],
        "time between frames in another unit than the header's": [
            sound(voxels(6, 5, 3, 20), dt=33.0)
        ],
        "padding or outliers far outside of the image": [sound(padded())],
        "time between frames missing or absurd": [sound(voxels(6, 5, 3, 4), dt=0.0)],
        "long-axis series in the folder, shuffled instance numbers, one series a slice": [
            lambda folder: save_dicom(short_axis() + long_axis(), folder, shuffle=3)
        ],
        "a missing slice, mixed spacing, jitter": [
            lambda folder: save_dicom(short_axis((0, 10, 20, 40)), folder),
            lambda folder: save_dicom(short_axis((0, 8, 20, 28)), folder),
            lambda folder: save_dicom(short_axis((0, 10.3, 19.7, 30.1)), folder),
        ],
        "several images at one time, a rotated slice, another matrix, a missing frame": [
            lambda folder, damage=damage: save_dicom(damage(short_axis()), folder)  # type: ignore[misc]
            for damage, *_ in ODD
        ],
        "a slice of a whole film with another number of frames, with trigger times": [
            lambda folder: save_dicom(
                short_axis((0, 10, 30), 8, step=100) + short_axis([20], 10, step=80, series=50),
                folder,
            )
        ],
        "the same stack twice": [lambda folder: save_dicom([*chain(*two_stacks())], folder)],
        "late enhancement, maps or perfusion on the planes of the film": [
            lambda folder: save_dicom(short_axis() + late_enhancement(), folder)
        ],
        "a slice acquired again": [
            lambda folder: save_dicom(short_axis() + short_axis([10], series=50), folder)
        ],
        "two views that may both be the short axis": [
            lambda folder: save_dicom(
                short_axis() + short_axis(axes=OBLIQUE[:, [2, 0, 1]], series=50), folder
            )
        ],
        "an axial film of more slices than the short axis": [
            lambda folder: save_dicom(
                short_axis() + short_axis(range(0, 90, 10), axes=np.eye(3), series=50), folder
            )
        ],
        "phase images, CT, segmentations, screenshots, processed copies": [
            lambda folder, change=change: save_dicom(  # type: ignore[misc]
                short_axis() + changed(short_axis(series=50), change), folder
            )
            for change in (*others(), PARTS["phase"], COPIES["derived"])
        ],
        "the same image sent twice": [
            lambda folder: save_dicom([*(film := short_axis()), resent(film[4])], folder)
        ],
        "a slice thickness or spacing that positions contradict": [
            lambda folder: save_dicom(changed(short_axis(), fields(SliceThickness=40)), folder),
            lambda folder: save_dicom(
                changed(short_axis(), fields(SpacingBetweenSlices=5)), folder
            ),
        ],
        "links to files and folders, also in a circle": [linked],
        "JPEG Lossless, JPEG-LS, JPEG 2000, high-throughput JPEG 2000, RLE, lossy JPEG of 8 bits": [
            lambda folder, encode=encode: exam(encode, folder)  # type: ignore[misc]
            for encode in (LOSSLESS | LOSSY | HIGH_THROUGHPUT).values()
        ],
        "other encodings: lossy JPEG of 12 bits, JPEG XL": [
            lambda folder, encode=encode: exam(encode, folder)  # type: ignore[misc]
            for encode in UNREAD.values()
        ],
        "compressed pixels that are cut off": [
            lambda folder, syntax=syntax: cut_off(syntax, 0.5, folder)  # type: ignore[misc]
            for syntax in LOSSLESS
        ],
        "archives that point outside or hold symbolic links, zip bombs": [
            lambda folder: evil_zip(folder / "a.zip", "../escaped.dcm"),
            lambda folder: evil_zip(folder / "a.zip", "link.dcm", link=True),
            lambda folder: bomb(folder / "a.zip"),
        ],
    }
)
"""Rows that `calid inspect` shows: its exit code is that of reading, in every command."""

OPTIONS: MappingProxyType[str, tuple[Input, tuple[str, ...]]] = MappingProxyType(
    {
        "a field of view beyond any scanner's, pixels finer than any": (
            sound(voxels(6, 5, 4), *HUGE),
            ("--factor", "2"),
        ),
        "a dense volume of more slices than the limit": (
            sound(voxels(6, 5, 4)),
            ("--factor", "1000000000"),
        ),
        "less memory than the least that is needed": (
            sound(voxels(33, 20, 3)),
            ("--factor", "2", "--max-memory", "0.001"),
        ),
    }
)
"""Rows that `calid reconstruct` shows with these options."""

WEIGHTS: MappingProxyType[str, list[Input]] = MappingProxyType(
    {
        "a pickle, a damaged file, another network's file under the name of weights": [
            weights(lambda path: trap(path, path.with_name("run"))),
            weights(lambda path: path.write_bytes(b"no weights")),
            weights(lambda path: path.symlink_to(released("autoencoder"))),
        ]
    }
)
"""Rows that `calid reconstruct --weights` shows."""

ELSEWHERE = MappingProxyType(
    {
        "uncertainty of an integer image": (
            "faults/test_odd_inputs.py::test_an_int16_header_is_not_used_for_floats"
        ),
        "a configuration that is missing, foreign, or does not fit the parameters": (
            "faults/test_weights_faults.py::test_a_configuration_that_does_not_fit_is_refused"
        ),
        "networks that answer with values that are not numbers": (
            "faults/test_odd_inputs.py::test_answers_that_are_not_numbers_are_never_written"
        ),
        "a reconstruction as the input of another": (
            "faults/test_origin.py::test_a_reconstruction_is_no_input_of_another"
        ),
        "a JSON file that is not calid's where the record would go": (
            "faults/test_origin.py::test_a_file_of_somebody_else_is_not_replaced_by_the_record"
        ),
        "memory that runs out on the way": (
            "inference/test_memory.py::test_parts_are_halved_until_they_fit"
        ),
        "full disk, folder that refuses files": (
            "end_to_end/test_interrupted.py::test_a_full_disk_leaves_nothing_or_what_was_there"
        ),
        "killed, at any moment": (
            "end_to_end/test_interrupted.py::"
            "test_killed_runs_leave_whole_files_and_end_as_if_nothing_had_happened"
        ),
        "Ctrl-C": "cli/test_log.py::test_interruptions_and_faults_of_ours_are_logged",
        "a subject of a cohort that fails": (
            "cli/test_cohort_command.py::test_a_bad_subject_costs_an_exit_code_and_nothing_else"
        ),
        "a cohort, cut off and started again with `--resume`": (
            "cli/test_cohort_command.py::test_resume_does_what_is_missing_or_altered"
        ),
        "a training, cut off and started again with `--resume`": (
            "training/test_resume.py::"
            "test_a_run_that_was_cut_off_and_resumed_is_the_uninterrupted_run"
        ),
        "another number of threads, other positions asked for together": (
            "inference/test_determinism.py::test_the_number_of_threads_does_not_matter"
        ),
        "another device": (
            "inference/test_determinism.py::test_noise_is_drawn_on_the_cpu_for_every_device"
        ),
        "names, dates and identifiers of a patient": (
            "end_to_end/test_privacy.py::"
            "test_a_dicom_patient_is_in_the_derived_series_and_in_no_other_file"
        ),
    }
)
"""Rows that need more than a file, and the test of each."""


def released(name: str) -> Path:
    from calid.weights import weights_path

    return weights_path(name)


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(20 * 2**20))
    return path


def table() -> Iterator[tuple[str, str, int]]:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[-1].isdecimal():
            yield cells[0], cells[1], int(cells[2])


ROWS = {row: (promise, code) for row, promise, code in table()}


def test_every_row_is_shown_and_nothing_else() -> None:
    shown = [*READ, *OPTIONS, *WEIGHTS, *ELSEWHERE]
    assert len(shown) == len(set(shown))
    assert set(ROWS) == set(shown)
    assert len(list(table())) == len(ROWS)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def check(row: str, code: int, shown: str, before: list[str], folder: Path) -> None:
    """The code of the table, what it says about warnings, and nothing written."""
    promise, expected = ROWS[row]
    assert code == expected, shown
    assert "Traceback" not in shown
    assert ("error" in shown) == (expected != 0)
    if expected == 0:
        assert ("warning" in shown) == ("warning" in promise), shown
    assert files(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("row", READ)
def test_reading_keeps_the_promise(row: str, tmp_path: Path, capfd) -> None:
    for number, make in enumerate(READ[row]):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = make(folder)
        before = files(folder)
        code = run("inspect", path)
        captured = capfd.readouterr()
        check(row, code, captured.out.replace(str(tmp_path), "") + captured.err, before, folder)


@pytest.mark.parametrize("row", OPTIONS)
def test_a_reconstruction_keeps_the_promise(row: str, tmp_path: Path, capfd) -> None:
    make, options = OPTIONS[row]
    path = make(tmp_path)
    before = files(tmp_path)
    code = run("reconstruct", path, tmp_path / "out.nii", "--device", "cpu", *options)
    check(row, code, capfd.readouterr().err, before, tmp_path)


@pytest.mark.parametrize("row", WEIGHTS)
def test_weights_keep_the_promise(row: str, tmp_path: Path, capfd) -> None:
    stack = save(tmp_path / "a.nii", voxels(33, 20, 3))
    for number, make in enumerate(WEIGHTS[row]):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder)
        before = files(tmp_path)
        code = run("reconstruct", stack, tmp_path / "out.nii", "--factor", 2, "--weights", folder)
        check(row, code, capfd.readouterr().err, before, tmp_path)


@pytest.mark.parametrize("row", ELSEWHERE)
def test_the_test_of_a_row_is_there(row: str) -> None:
    file, name = ELSEWHERE[row].split("::")
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
