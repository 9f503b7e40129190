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


def imports(source: str) -> set[tuple[str, str]]:
    """Modules of the package that a source imports, wherever it does, each with a name of it.

    The name is empty where the module itself is imported.
    """
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {(node.module or "", alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
    return {(module, name) for module, name in found if module.split(".")[0] == "calid"}


def rooms_used(source: str) -> set[str]:
    """Rooms that a module imports from, by the entrance too; `.` is the entrance itself."""
    homes = {
        calid._HOME.get(name, name) if module == "calid" else module.removeprefix("calid.")
        for module, name in imports(source)
    }
    return {home.split(".")[0] or "." for home in homes}


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
    assert rooms_used("from calid import reconstruct") == {"inference"}


def test_floors_name_a_room_once():
    rooms = [room for floor in FLOORS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert all(upper and lower for upper, lower in pairwise(FLOORS))


OPTIONAL = {
    "view": "src/calid/view/*.py",
    "cohort": "src/calid/cohort/*.py",
    "report": "src/calid/report/*.py",
    "io": "src/calid/io/dicom_write.py",
    "benchmarks": "benchmarks/*.py",
}
"""Parts that the package does without, by the room that is their own. They use what users use."""

NOT_PUBLIC = {
    "calid.cli.main": "what is killed at random is forked from a process that has it loaded",
    "calid.evaluation.cost": "growth measures the peak of memory as the protocol does",
    "calid.evaluation.hidden_slices": "crispness is measured in the square of the evaluation",
    "calid.evaluation.protocol": "figures draw the rows that a protocol finds",
    "calid.geometry.affine": "an affine is checked as that of a file that is read",
    "calid.html": "pages are made of templates in one way",
    "calid.inference.machine": "stages name the processor as costs do",
    "calid.inference.memory": "growth compares the estimate of memory with what is taken",
    "calid.io.atomic": "files appear complete or not at all",
    "calid.io.find": "a cohort searches folders as evaluate and train do",
    "calid.io.sidecar": "records have one form, and files are told apart by one hash",
    "calid.models.interpolator": "the trade-off is drawn around the dial that is shipped",
    "calid.models.motion": "what tells whole heartbeats from parts is measured on whole films",
    "calid.training.recipes": "curves are drawn against the recipe's tuples",
    "calid.training.setup": "as calid.cli.main",
    "calid.words": "numbers are written in words in one way",
}
"""Modules that these parts use although no user needs them, and why."""


def documented() -> set[str]:
    """Modules and names that the reference of Python has a section of."""
    pages = (ROOT / "docs" / "reference" / "python").glob("*.md")
    return {name for page in pages for name in re.findall("^::: (.+)$", page.read_text(), re.M)}


def inside(part: str) -> set[tuple[str, str]]:
    """What an optional part imports that is neither public nor of an optional part."""
    own = tuple(f"calid.{room}." for room in (part, "view", "cohort", "report"))
    pages = documented() if part == "benchmarks" else set()
    return {
        (module, name)
        for path in sorted(ROOT.glob(OPTIONAL[part]))
        for module, name in imports(path.read_text())
        if not (module == "calid" and name in {"", *calid.__all__})
        and not module.startswith(own)
        and module.removeprefix("calid.") not in calid.__all__
        and not pages & {module, f"{module}.{name}"}
    }


@pytest.mark.parametrize("part", OPTIONAL)
def test_optional_parts_use_the_public_names(part):
    assert {found for found in inside(part) if found[0] not in NOT_PUBLIC} == set()


def test_every_exception_is_needed():
    assert {module for part in OPTIONAL for module, _ in inside(part)} == set(NOT_PUBLIC)


def test_public_names_are_documented():
    homes = {name: f"calid.{calid._HOME.get(name, name)}" for name in calid.__all__}
    pages = documented()
    assert {n for n, home in homes.items() if not pages & {home, f"{home}.{n}"}} == set()


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
