"""The wheel alone holds all that a user needs: code, weights, pages and the command."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import nibabel as nib
import pytest

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("hatchling", reason="builds the wheel")


def call(*command: object, folder: Path) -> str:
    """Run a command that sees no other copy of the package; what it printed."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=inherited, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    call(*pip, "--wheel-dir", folder, ROOT, folder=folder)
    (built,) = folder.glob("calid-*.whl")
    return built


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(wheel: Path):
    package = ROOT / "src" / "calid"
    files = {p.relative_to(package.parent).as_posix() for p in package.rglob("*") if p.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        assert files == {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.mark.slow
def test_the_demo_runs_from_an_installed_wheel(wheel: Path, tmp_path: Path):
    home = tmp_path / "venv"
    venv.create(home)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index")
    call(*pip, wheel, folder=tmp_path)
    # Dependencies are borrowed from this environment, which saves loading torch again. A folder
    # that a .pth file names is searched last, and its own .pth files are not read: an editable
    # installation in it is not seen.
    site = Path(
        call(python, "-c", "import site; print(site.getsitepackages()[0])", folder=home).strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = call(python, "-c", "import calid; print(calid.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(site)
    assert call(home / "bin" / "calid", "--version", folder=tmp_path).startswith("calid ")
    lines = call(python, "-c", DEMO, folder=tmp_path).splitlines()
    assert lines[-1] == str(Path("demo") / "comparison.png")
    table = {line.split()[0]: [float(v) for v in line.split()[1:]] for line in lines[3:5]}
    assert table["CaLID"][0] > table["linear"][0]
    assert table["CaLID"][1] > table["linear"][1]
    demo = tmp_path / "demo"
    assert (demo / "comparison.png").stat().st_size > 20_000
    assert "Research use only" in (demo / "viewer.html").read_text("utf-8")
    assert nib.load(demo / "reconstruction.nii.gz").ndim == 3


DEMO = """
import sys
from calid.cli.main import main

main(["demo", "--out", "demo"])
assert "torch._dynamo" not in sys.modules, "a compiler was imported"
"""
