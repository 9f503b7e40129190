"""The tables of the reference say what the code does."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from calid import errors

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
UNITS = {"": 1, "mm": 1, "s": 1, "slices": 1, "MiB": 2**20, "GiB": 2**30}


def rows(page: str) -> list[list[str]]:
    """Cells of all table rows of a page, without heads and rules."""
    lines = (FOLDER / page).read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables]
    rules = [i for i, row in enumerate(cells) if set("".join(row)) <= set("-: ")]
    return [row for i, row in enumerate(cells) if i not in rules and i + 1 not in rules]


def kinds() -> dict[str, type[errors.CalidError]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return {name: kind for name, kind in found if issubclass(kind, errors.CalidError)}


def test_every_error_has_its_own_code_and_row() -> None:
    table = {name.strip("`"): (int(code), text) for code, name, text in rows("exit-codes.md")}
    for name, kind in kinds().items():
        code, text = table[name]
        assert code == kind.exit_code
        assert text.startswith((inspect.getdoc(kind) or "").splitlines()[0].rstrip("."))
    codes = [kind.exit_code for kind in kinds().values()]
    assert len(codes) == len(set(codes))


def test_no_row_is_without_an_error() -> None:
    named = {name.strip("`") for _, name, _ in rows("exit-codes.md") if name}
    assert named == kinds().keys()


LIMITS = [row for row in rows("limits.md") if len(row) == 4]


@pytest.mark.parametrize("row", LIMITS, ids=[row[3].split(".")[-1].strip("`") for row in LIMITS])
def test_a_limit_is_the_constant(row: list[str]) -> None:
    _, value, unit, constant = row
    path, index = re.fullmatch(r"`([\w.]+)(?:\[(\d)\])?`", constant).groups()  # type: ignore[union-attr]
    module, _, name = path.rpartition(".")
    found = getattr(import_module(module), name)
    found = found if index is None else found[int(index)]
    assert float(value) * UNITS[unit] == found


def test_the_limits_of_the_readers_are_all_listed() -> None:
    listed = {row[3].strip("`").split("[")[0] for row in LIMITS}
    for name in ("calid.io.nifti", "calid.geometry.affine", "calid.geometry.grid"):
        module = import_module(name)
        numbers = {
            f"{name}.{key}"
            for key, value in vars(module).items()
            if re.fullmatch(r"[A-Z][A-Z_]+", key) and isinstance(value, int | float | tuple)
        }
        settings = {"calid.io.nifti.SUFFIXES", "calid.geometry.grid.PIXEL_SPACING"}
        assert numbers - listed - settings == {"calid.geometry.grid.TILE"} & numbers


def test_faults_name_codes_that_exist() -> None:
    known = {int(code) for code, *_ in rows("exit-codes.md")}
    listed = rows("faults.md")
    assert len(listed) > 30
    assert all(int(row[2]) in known for row in listed)
