"""Names that stand in an input, its header or its path stand in no output."""

from __future__ import annotations

import ast
import gzip
import io
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from safetensors import safe_open

import calid
from calid.cli.main import main

HEADER = {
    "descrip": "Doe^Descrip",
    "aux_file": "Doe^Auxiliary",
    "intent_name": "Doe^Intent",
    "db_name": "Doe^Database",
}
EXTENSIONS = {2: "Doe^Dicom", 4: "Doe^Afni", 6: "Doe^Comment"}  # NIfTI codes
FOLDER, FILE = "Mustermann_Erika", "Petrova_19700101.nii.gz"
PATIENT = {
    "PatientName": "Doe^Jane",
    "PatientID": "HOSP-4711",
    "OtherPatientNames": "Roe^Former",
    "ReferringPhysicianName": "Who^Doctor",
    "InstitutionName": "Saint Elsewhere",
    "PatientComments": "neighbour of Smith",
}
NAMES = [*HEADER.values(), *EXTENSIONS.values(), "Mustermann", "Petrova", "19700101"]


def save(path: Path, seed: int) -> Path:
    """A stack whose header and path are full of names."""
    voxels = np.random.default_rng(seed).integers(0, 400, (32, 32, 3)).astype(np.int16)
    return save_voxels(path, voxels)


def save_voxels(path: Path, voxels: np.ndarray) -> Path:
    image = nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 10.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    for field, text in HEADER.items():
        image.header[field] = text.encode()
    for code, text in EXTENSIONS.items():
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, text.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    content = gzip.decompress(path.read_bytes())
    assert all(name.encode() in content for name in [*HEADER.values(), *EXTENSIONS.values()])
    return path


@pytest.fixture(scope="module")
def stack_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("in") / FOLDER / FILE, 0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)


def run(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def texts(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what is compressed in them."""
    content = path.read_bytes()
    yield content
    if path.name.endswith(".gz"):
        yield gzip.decompress(content)
    elif path.suffix == ".png":
        with Image.open(io.BytesIO(content)) as picture:
            yield repr(picture.info).encode()
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            yield repr([(f.filename, f.comment, f.extra) for f in archive.infolist()]).encode()
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as store:
            yield repr(store.metadata()).encode()


def leaks(folder: Path, names: list[str]) -> list[tuple[str, str]]:
    """Output files, and the names that stand in them or in their own names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    found = []
    for path in files:
        where = str(path.relative_to(folder))
        for text in (where.encode(), *texts(path)):
            found += [(where, name) for name in names if name.lower().encode() in text.lower()]
    return found


@pytest.mark.slow
def test_nothing_of_header_or_path_is_in_the_files_of_reconstruct(stack_file, tmp_path):
    command = ("reconstruct", stack_file, tmp_path / "dense.nii.gz", "--factor", 2)
    short = ("--steps", 1, "--device", "cpu", "--log-json", tmp_path / "run.jsonl")
    files = ("--uncertainty", tmp_path / "std.nii.gz", "--figure", tmp_path / "cut.png")
    run(*command, *short, *files, "--report", tmp_path / "page.html", "--samples", 2)
    run(*command, *short, "--figure", tmp_path / "cut.svg")
    assert len(list(tmp_path.iterdir())) == 7
    assert leaks(tmp_path, NAMES) == []
    assert list(nib.load(tmp_path / "dense.nii.gz").header.extensions) == []


@pytest.mark.slow
def test_a_dicom_patient_is_in_the_derived_series_and_in_no_other_file(stack_file, tmp_path):
    exam, out = tmp_path / FOLDER, tmp_path / "out"
    short = ("--factor", 2, "--device", "cpu")
    run("reconstruct", stack_file, tmp_path / "first.nii.gz", *short, "--dicom", exam)
    for path in exam.iterdir():
        image = pydicom.dcmread(path)
        for keyword, text in PATIENT.items():
            setattr(image, keyword, text)
        image.save_as(path.with_name(f"Petrova_{path.name}"))
        path.unlink()
    out.mkdir()
    extra = ("--figure", out / "cut.png", "--report", out / "page.html")
    log = ("--log-json", out / "run.jsonl")
    run("reconstruct", exam, out / "dense.nii.gz", *short, *extra, *log, "--dicom", out / "series")
    run("segment", exam, out / "labels.nii.gz", *log)
    run("inspect", exam, "--json", out / "exam.json", *log)
    names = [*PATIENT.values(), "Mustermann", "Petrova"]
    found = leaks(out, names)
    assert {where.split("/")[0] for where, _ in found} == {"series"}
    # What files the series with its study, and nothing else of the source.
    study = {"PatientName", "PatientID", "ReferringPhysicianName"}
    assert {name for _, name in found} == {PATIENT[keyword] for keyword in study}


@pytest.mark.slow
def test_nothing_of_header_or_path_is_in_the_files_of_segment_and_measure(stack_file, tmp_path):
    log = ("--log-json", tmp_path / "run.jsonl", "--device", "cpu")
    run("segment", stack_file, tmp_path / "labels.nii.gz", *log)
    voxels = np.zeros((32, 32, 3), np.uint8)
    voxels[5:15, 5:15], voxels[8:12, 8:12] = 2, 3
    manual = ("--labels", save_voxels(stack_file.with_name("Doe^Labels.nii.gz"), voxels))
    run("measure", stack_file, *manual, "--out", tmp_path / "measures", "--no-dense", *log)
    assert len(list(tmp_path.rglob("*.*"))) == 5
    assert leaks(tmp_path, NAMES) == []


def test_an_evaluation_names_its_folder_and_subjects_and_nothing_else(tmp_path):
    data, out = tmp_path / "in" / FOLDER / "study" / "stacks", tmp_path / "out"
    for seed, name in enumerate(("s1", "s2")):
        save(data / f"{name}_ED.nii.gz", seed)
    log = ("--log-json", tmp_path / "out" / "run.jsonl")
    out.mkdir()
    run("evaluate", data, "--out", out, "--methods", "nearest,linear", *log)
    assert leaks(out, [*NAMES, str(tmp_path)]) == []
    assert "study/stacks" in (out / "summary.json").read_text()
    assert "s1" in (out / "per_subject.csv").read_text()


def test_a_failed_run_names_its_input_on_the_terminal_alone(stack_file, tmp_path, capsys):
    damaged = tmp_path / "in" / FILE
    damaged.parent.mkdir()
    damaged.write_bytes(stack_file.read_bytes()[:600])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(SystemExit):
        run("reconstruct", damaged, out / "dense.nii", "--log-json", out / "run.jsonl")
    assert leaks(out, NAMES) == []
    assert "Petrova" in capsys.readouterr().err


def test_the_search_finds_what_is_there(stack_file, tmp_path):
    (tmp_path / "copy.nii.gz").write_bytes(stack_file.read_bytes())
    (tmp_path / "petrova.txt").write_text("MUSTERMANN")
    found = leaks(tmp_path, NAMES)
    assert {name for _, name in found} == {*NAMES} - {"19700101"}
    picture = Image.new("L", (2, 2))
    picture.save(tmp_path / "text.tiff", description="Doe^Comment")
    assert ("text.tiff", "Doe^Comment") in leaks(tmp_path, NAMES)


FORBIDDEN = {
    *("pickle", "dill", "joblib", "marshal", "shelve"),  # run code when they load
    *("requests", "urllib3", "httpx", "ftplib", "smtplib", "telnetlib", "xmlrpc"),
    *("urllib.request", "http.client"),
}


@pytest.mark.slow
def test_no_code_is_loaded_from_files_and_none_calls_home():
    for path in Path(calid.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            imported: list[str] = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            bad = {n for n in imported if {n, n.split(".")[0]} & FORBIDDEN}
            assert not bad, f"{path}:{getattr(node, 'lineno', 0)} imports {bad}"
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                assert call not in {"torch.load", "eval", "exec"}, f"{path}:{node.lineno}"
                assert not call.endswith("extractall"), f"{path}:{node.lineno}: unsafe unzip"
                assert "allow_pickle" not in {k.arg for k in node.keywords}, f"{path}"
