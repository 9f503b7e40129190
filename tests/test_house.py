"""How the house is built: imports run one way, files stay small, nothing names a machine."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

import calid

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "calid"

# Every room may use those above it. Rooms on one line do not know each other.
FLOORS = (
    ("errors", "html", "progress", "words"),
    ("runtime", "stack", "weights"),
    ("geometry",),
    ("io",),
    ("data", "diffusion"),
    ("models",),
    ("baselines", "segmentation"),
    ("inference",),
    ("evaluation", "view"),
    ("report",),
    ("training", "cohort"),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ENTRANCES = ("__init__", "__main__")
"""What users import and run; they only point into the rooms."""


MACHINE = re.compile(rb"(?<![\w.<>-])/(?:home|Users|root|work|mnt|scratch|workspace)/[\w.-]")
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".cff", ".json", ".ipynb", ".csv", ".js"}
TEXT |= {".css", ".html", ".j2", ".jinja", ""}


def tracked() -> list[Path]:
    """Files in the repository; without git, those of its folders that hold code."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
    )
    if listed.returncode == 0:
        return [p for p in (ROOT / n for n in listed.stdout.decode().split("\0")) if p.is_file()]
    return [p for folder in ("src", "tests") for p in (ROOT / folder).rglob("*") if p.is_file()]


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def rooms_used(source: str) -> set[str]:
    """Rooms that a module imports from, at its top or inside functions; `.` is the entrance."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "calid":
                names |= {f"calid.{alias.name}" for alias in node.names}
            else:
                names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [name.split(".") for name in names if name.split(".")[0] == "calid"]
    return {part[1] if len(part) > 1 else "." for part in parts}


@pytest.mark.slow
@pytest.mark.parametrize("room", sorted({room_of(p) for p in sources()} - set(ENTRANCES)))
def test_imports_run_one_way(room):
    assert room in FLOOR, f"say in FLOORS on which floor {room} lies"
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {used}"
        for path in sources()
        if room_of(path) == room
        for used in rooms_used(path.read_text()) - {room, "."}
        if FLOOR.get(used, len(FLOORS)) >= FLOOR[room]
    }
    assert wrong == set()


def test_an_import_is_seen_wherever_it_stands():
    source = "import calid.io\ndef f():\n    from calid.cli.main import main\n    import calid\n"
    assert rooms_used(source) == {"io", "cli", "."}
    assert rooms_used("from calid import stack") == {"stack"}


def test_floors_name_a_room_once():
    rooms = [room for floor in FLOORS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert all(upper and lower for upper, lower in pairwise(FLOORS))


def test_papers_agree_on_the_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == calid.__version__
    assert f"\nversion: {calid.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{calid.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_figures_have_their_places():
    command = (ROOT / "benchmarks" / "write_results.py").read_text()
    files = {
        "card": PACKAGE / "weights" / "MODEL_CARD.md",
        'BASELINES / "README.md"': ROOT / "benchmarks" / "baselines" / "README.md",
    }
    places = re.findall(r'put\((ROOT / "README.md"|BASELINES / "README.md"|card), "(\w+)"', command)
    assert len(places) > 5
    for file, marker in places:
        text = files.get(file, ROOT / "README.md").read_text()
        assert text.count(f"<!-- {marker} -->\n") == text.count(f"<!-- /{marker} -->") == 1


def test_nothing_tracked_names_a_machine():
    found = {}
    for path in tracked():
        examples = path == Path(__file__)
        if not examples and path.suffix in TEXT and (hits := MACHINE.findall(path.read_bytes())):
            found[path.relative_to(ROOT).as_posix()] = hits[:3]
    assert found == {}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"open('/home/me/stack.nii.gz')", True),
        (b"cd /mnt/scans", True),
        (b"file:///Users/me", True),
        (b"https://example.org/home/page", False),
        (b"docs/data/readme", False),
        (b"a / work / b, 'data/x'", False),
    ],
)
def test_a_machine_path_is_known_by_its_look(line, wrong):
    assert bool(MACHINE.search(line)) is wrong
