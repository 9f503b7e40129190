"""Every verb ends bad input with the code of its class of error, and never with a traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import run as calid
from command_line import write_nifti

from calid import errors
from calid.weights import weights_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad files side by side, each alone in its folder."""
    top = tmp_path_factory.mktemp("inputs")
    voxels = np.random.default_rng(0).integers(0, 400, (24, 24, 3)).astype(np.int16)
    bad = voxels.astype(np.float32)
    bad[3, 4, 1] = np.nan
    for name in ("good", "held", "text", "single", "nan", "empty"):
        (top / name).mkdir()
    write_nifti(top / "good" / "p1_ED.nii.gz", voxels)
    write_nifti(top / "held" / "p2_ED.nii.gz", voxels)
    write_nifti(top / "single" / "p1_ED.nii.gz", voxels[..., :1])
    write_nifti(top / "nan" / "p1_ED.nii.gz", bad)
    (top / "text" / "p1_ED.nii.gz").write_text("not an image")
    (top / "weights.safetensors").write_bytes(b"not weights")
    return top


CLASSES = {
    error.__name__: error.exit_code
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, errors.CalidError)
}

STACK = "{top}/{case}/p1_ED.nii.gz"
ON_STACKS = {
    "reconstruct": ("reconstruct", STACK, "{out}/dense.nii.gz"),
    "segment": ("segment", STACK, "{out}/labels.nii.gz"),
    "measure": ("measure", STACK),
    "measure --es": ("measure", "{top}/good/p1_ED.nii.gz", "--es", STACK),
}
TRAINING = ("--data", "{top}/{case}", "--validation", "{top}/{case}", "--out", "{out}/run")
STAGE_1 = ("--autoencoder", str(weights_path("autoencoder")))
ON_FOLDERS = {
    "evaluate": ("evaluate", "{top}/{case}", "--out", "{out}/report", "--methods", "linear"),
    "evaluate downstream": (
        *("evaluate", "{top}/{case}", "--out", "{out}/report"),
        *("--protocol", "downstream", "--methods", "linear"),
    ),
    "train autoencoder": ("train", "autoencoder", *TRAINING),
    "train default": ("train", "default", *TRAINING, *STAGE_1),
    "train regression": ("train", "regression", *TRAINING, *STAGE_1),
    "train segmentation": ("train", "segmentation", *TRAINING),
}
CASES = {
    "absent": ("InputError", "DataError"),
    "text": ("InputError", "DataError"),
    "single": ("GeometryError", "DataError"),
    "nan": ("IntensityError", "DataError"),
    "empty": ("InputError", "DataError"),
}
"""Inputs to the error of verbs that take a stack, and of those that take a folder."""

GOOD = "{top}/good/p1_ED.nii.gz"
FILM = ("--data", "{top}/good", "--validation", "{top}/held", "--out", "{out}/run")
OTHERS = {
    "reconstruct, an option": (("reconstruct", GOOD, "{out}/d.nii", "--factor", "0"), "UsageError"),
    "reconstruct, a device": (("reconstruct", GOOD, "{out}/d.nii", "--device", "x"), "UsageError"),
    "reconstruct, an output": (("reconstruct", GOOD, "{out}/d.txt"), "OutputError"),
    "segment, a device": (("segment", GOOD, "{out}/d.nii", "--device", "x"), "UsageError"),
    "segment, an output": (("segment", GOOD, "{out}/d.txt"), "OutputError"),
    "measure, a device": (("measure", GOOD, "--device", "x"), "UsageError"),
    "measure, an option": (("measure", GOOD, "--es-labels", GOOD), "UsageError"),
    "measure, an output": (("measure", GOOD, "--out", "{out}/no/where"), "OutputError"),
    "evaluate, a method": (
        ("evaluate", "{top}/good", "--out", "{out}/r", "--methods", "magic"),
        "UsageError",
    ),
    "evaluate, weights": (
        ("evaluate", "{top}/good", "--out", "{out}/r", "--methods", "regression"),
        "WeightsError",
    ),
    "train, absent weights of stage 1": (
        ("train", "default", *FILM, "--autoencoder", "{top}/absent.safetensors"),
        "WeightsError",
    ),
    "train, damaged weights of stage 1": (
        ("train", "diffusion-autoencoder", *FILM, "--autoencoder", "{top}/weights.safetensors"),
        "WeightsError",
    ),
    "train, a former name": (("train", "interpolator", *FILM), "UsageError"),
    "train, a device": (("train", "autoencoder", *FILM, "--device", "x"), "UsageError"),
    "demo, an option": (("demo", "--out", "{out}/demo", "--samples", "-1"), "UsageError"),
    "info, an option": (("info", "--magic"), "UsageError"),
    "no verb": ((), "UsageError"),
    "another verb": (("magic",), "UsageError"),
}


def run(arguments: tuple[str, ...], **places: object) -> int:
    return calid(*(argument.format(**places) for argument in arguments))


def test_every_class_has_its_own_code():
    assert len(set(CLASSES.values())) == len(CLASSES) >= 8
    assert 0 not in CLASSES.values()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("verb", [*ON_STACKS, *ON_FOLDERS])
def test_bad_inputs_of_every_verb(verb, case, folder, tmp_path, capsys):
    expected = CASES[case][verb in ON_FOLDERS]
    command = ON_STACKS.get(verb) or ON_FOLDERS[verb]
    assert run(command, top=folder, case=case, out=tmp_path) == CLASSES[expected]
    message = capsys.readouterr().err
    assert "error" in message
    assert "Traceback" not in message
    assert list(tmp_path.rglob("*.nii*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS)
def test_what_else_can_be_wrong(case, folder, tmp_path, capsys):
    arguments, expected = OTHERS[case]
    assert run(arguments, top=folder, out=tmp_path) == CLASSES[expected]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--temperature", "0.5"), ("--runtime=openvino",)])
def test_options_that_are_gone_name_what_to_do_instead(option, tmp_path, capsys):
    assert calid("reconstruct", tmp_path / "a.nii", tmp_path / "b.nii", *option) == 2
    said = capsys.readouterr().err
    assert option[0].split("=")[0] in said
    assert "since calid 0.2" in said
