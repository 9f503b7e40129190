from __future__ import annotations

import json
import subprocess
import sys

import pytest

from calid import runtime
from calid.cli import info
from calid.cli.main import main
from calid.weights import FOLDER


def test_info_tells_hashes_and_sizes_of_all_weights(capsys):
    main(["info", "--json"])
    content = json.loads(capsys.readouterr().out)
    assert set(content["weights"]) >= {"autoencoder", "default", "paper"}
    for name, facts in content["weights"].items():
        path = FOLDER / f"{name}.safetensors"
        assert facts["bytes"] == path.stat().st_size
        assert facts["parameters"] * 2 < facts["bytes"] < facts["parameters"] * 2 + 100_000
        assert facts["figures"]
    assert content["licence"]["weights"] == "CC BY-NC-SA 4.0"


def test_info_tells_what_runs_where(capsys, monkeypatch):
    monkeypatch.setattr(runtime.torch.cuda, "is_available", lambda: False)
    main(["info", "--json"])
    content = json.loads(capsys.readouterr().out)
    assert content["runs_on"]["device"] == "cpu"
    assert content["runs_on"]["precision"] in ("float32", "bfloat16")
    assert content["runs_on"]["gpu"] is None
    assert content["runs_on"]["cores"] >= 1
    assert content["runs_on"]["processor"]
    assert content["libraries"]["torch"]
    monkeypatch.setattr(info, "LIBRARIES", ("torch", "no-such-library"))
    main(["info"])
    text = capsys.readouterr().out
    assert "networks run on cpu in" in text
    assert "no-such-library not installed" in text


def test_the_weights_fit_their_budget():
    sizes = [p.stat().st_size for p in FOLDER.glob("*.safetensors")]
    assert sum(sizes) <= 60e6


HEAVY = ["torch", "matplotlib", "ray"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], [*HEAVY, "scipy", "nibabel", "pydicom"]),
        (["info", "--json"], HEAVY[1:]),
    ],
)
def test_help_and_info_import_nothing_heavy(arguments, absent):
    code = (
        "import sys\nfrom calid.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"assert not set({absent!r}) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_public_names_are_all_there():
    import calid

    for name in calid.__all__:
        assert getattr(calid, name) is not None
    with pytest.raises(AttributeError):
        calid.nonsense  # noqa: B018
