# Two commands do everything, set-up included: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled when they are first imported, because most never are; then they are kept.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile \
	--constraint constraints.txt

.PHONY: demo test nightly lint docs clean

demo: .venv/installed
	$(BIN)/calid demo --out demo

test: .venv/installed lint
	$(BIN)/python -m pytest

nightly: .venv/nightly
	$(BIN)/python -m pytest -m nightly

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/nightly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable ".[dev]"
	touch $@

.venv/nightly: .venv/installed
	$(INSTALL) --editable ".[nightly]"
	touch $@

clean:
	rm -rf .venv demo site .pytest_cache .mypy_cache .ruff_cache
